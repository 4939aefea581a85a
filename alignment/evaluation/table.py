"""The end-of-run table as data: one row a number, with what it says in plain words.

The terminal, the report and the model card show these rows, so that they never disagree.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from alignment.evaluation.improvement_rows import gap_rows, improved_rows
from alignment.evaluation.judgment_rows import iterations, refined, satisfied
from alignment.evaluation.movement import fluency, kl, length
from alignment.evaluation.row import Row, section
from alignment.evaluation.statistics import share_interval
from alignment.evaluation.text import NOTHING, decimal, duration, interval, number, percent, visible


def rows(summary: Mapping[str, Any]) -> list[Row]:
    """The rows of `summary` (see summary.py for its keys) in the order in which they are read."""
    built = [
        _score(summary),
        *improved_rows(summary),
        _feedback(summary),
        satisfied(summary),
        *iterations(summary),
        refined(summary),
        _imitation(summary),
        *_ranking(summary),
        *gap_rows(summary),
        *_judged(summary),
        _best_of(summary),
        length(summary),
        fluency(summary),
        *_pairs(summary),
        *_answers(summary),
        kl(summary),
        *_cost(summary),
    ]
    return [row for row in built if row is not None]


def title(summary: Mapping[str, Any]) -> str:
    """`dpo on smollm2-135m, seed 0`."""
    name = f"{visible(summary.get('recipe', 'run'))} on {visible(summary.get('model', 'a model'))}"
    return f"{name}, seed {visible(summary['seed'])}" if summary.get("seed") is not None else name


def _score(summary: Mapping[str, Any]) -> Row | None:
    score = section(summary, "score")
    if number(score.get("after")) is None and number(score.get("before")) is None:
        return None
    bounds = interval(score.get("ci95"))
    label = f"score: {visible(score.get('name', 'score'))}"
    reading, tone = _score_reading(score, bounds)
    return Row(
        "score",
        label,
        decimal(score.get("before")),
        decimal(score.get("after")),
        decimal(score.get("difference"), sign=True),
        bounds,
        reading,
        tone,
    )


def _score_reading(score: Mapping[str, Any], bounds: str) -> tuple[str, str]:
    prompts = number(score.get("prompts"))
    over = f"Over {prompts:,.0f} held-out prompts" if prompts else "Over the held-out prompts"
    if not bounds:
        return f"{over} no interval is defined: too few scored answers to say whether the change is chance.", "plain"
    low, high = (float(end) for end in score["ci95"])
    if low > 0:
        return f"{over} the interval excludes zero: the score rose by more than chance explains.", "good"
    if high < 0:
        return f"{over} the interval excludes zero: the score fell by more than chance explains.", "bad"
    return (
        f"{over} the interval includes zero: this run does not show a change. More prompts (evaluation.prompts) "
        "narrow the interval.",
        "plain",
    )


def _feedback(summary: Mapping[str, Any]) -> Row | None:
    """What an online run was trained on, or picked its answers by, beside the score that it was not."""
    found = section(summary, "feedback")
    picked = bool(section(summary, "best_of"))
    name = f"{'picked by' if picked else 'trained on'}: {visible(found.get('name', 'feedback'))}"
    bounds = interval(found.get("ci95"))
    if number(found.get("wins")) is not None:
        ends = f"[{100 * found['ci95'][0]:.0f} %, {100 * found['ci95'][1]:.0f} %]" if bounds else ""
        reading = (
            "How often the run's own judge prefers the answer after training to the one before; 50 % is no change."
        )
        return Row(
            "feedback", name, "", percent(found["wins"], 0), "", ends, f"{reading} {_beside(summary, found)}".strip()
        )
    if number(found.get("after")) is None:
        failed = f"It said nothing of held-out answers ({visible(found['failed'])})." if "failed" in found else ""
        return Row("feedback", name, "", NOTHING, "", "", failed) if failed else None
    cells = decimal(found.get("before")), decimal(found.get("after")), decimal(found.get("difference"), sign=True)
    reading = (
        f"What {'picked the answers' if picked else 'the run was trained to raise'}, of the same held-out answers."
    )
    return Row("feedback", name, *cells, bounds, f"{reading} {_beside(summary, found)}".strip())


def _beside(summary: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Whether the score, which was not trained on, went along with the feedback that was."""
    ends, others, even = found.get("ci95"), section(summary, "score").get("ci95"), 0.5 if "wins" in found else 0.0
    if not isinstance(ends, list) or not isinstance(others, list) or ends[0] <= even:
        return ""
    if others[1] < 0:
        mend = "Sample fewer." if section(summary, "best_of") else "Stop earlier, or hold on to the reference."
        return f"It rose while the score fell: the feedback is being played. {mend}"
    return "The score rose with it." if others[0] > 0 else "The score does not show the same: read the samples."


def _best_of(summary: Mapping[str, Any]) -> Row | None:
    found = section(summary, "best_of")
    if number(found.get("n")) is None:
        return None
    reading, none = (
        "Samples to a prompt, of which the feedback picked one; no weight was trained.",
        found.get("no_verdict"),
    )
    reading += f" It said nothing of any of {none} prompts' samples: these kept the first." if none else ""
    return Row("best_of", "best of", "1", decimal(found["n"], 0), "", "", reading, "bad" if none else "plain")


def _imitation(summary: Mapping[str, Any]) -> Row | None:
    found = section(summary, "imitation")
    if number(found.get("after")) is None:
        return None
    bounds = interval(found.get("ci95"))
    low, high = found["ci95"] if bounds else (0.0, 0.0)
    reading, tone = "The interval includes zero: this run does not show a change.", "plain"
    if high < 0:
        reading, tone = "Held-out answers became more likely, by more than chance explains.", "good"
    elif low > 0:
        reading, tone = "Held-out answers became less likely: it fits its training answers too closely.", "bad"
    return Row(
        "imitation",
        "held-out nats per token",
        decimal(found.get("before"), 3),
        decimal(found.get("after"), 3),
        decimal(found.get("difference"), 3, sign=True),
        bounds,
        reading,
        tone,
    )


def _ranking(summary: Mapping[str, Any]) -> list[Row]:
    """The rows of a model that ranks answers: accuracy before and after, calibration, length, and further sets."""
    found = section(summary, "ranking")
    if number(found.get("after")) is None:
        return []
    ends = found.get("ci95")
    bounds = f"[{100 * ends[0]:+.0f} %, {100 * ends[1]:+.0f} %]" if isinstance(ends, list) else ""
    reading, tone = share_reading(found.get("after_ci95"), int(found.get("pairs") or 0))
    change = f"{100 * found['difference']:+.0f} %" if number(found.get("difference")) is not None else ""
    built = [
        Row(
            "ranking",
            "held-out pairs ranked right",
            percent(found.get("before")),
            percent(found.get("after")),
            change,
            bounds,
            reading,
            tone,
        )
    ]
    ece = number(section(summary, "calibration").get("ece"))
    if ece is not None:
        reading = "Mean distance of a verdict's confidence from how often such verdicts are right; 0 is calibrated."
        built.append(Row("ece", "expected calibration error", "", decimal(ece), "", "", reading))
    quarters = summary.get("by_length")
    if isinstance(quarters, list) and len(quarters) > 1:
        cells = f"{percent(quarters[0].get('accuracy'))} … {percent(quarters[-1].get('accuracy'))}"
        low, high = (f"{ends['from']:+,} to {ends['to']:+,} tokens" for ends in (quarters[0], quarters[-1]))
        reading = (
            f"Ranked right where the better answer is shortest beside the other one ({low}), and where it is longest "
            f"({high}). Far apart: it goes by length."
        )
        built.append(Row("by_length", "… by length: shortest … longest", "", cells, "", "", reading))
    for name, entry in section(summary, "judge_sets").items():
        ends = entry.get("ci95")
        bounds = f"[{100 * ends[0]:.0f} %, {100 * ends[1]:.0f} %]" if isinstance(ends, list) else ""
        reading, tone = share_reading(ends, int(entry.get("n") or 0))
        short = PurePath(str(name)).name
        built.append(
            Row(
                f"set {short}",
                f"ranked right: {visible(short)}",
                "",
                percent(entry.get("accuracy")),
                "",
                bounds,
                reading,
                tone,
            )
        )
    return built


# key: (label, which change is good: 1 a rise, -1 a fall, 0 neither; what it is). Log-probs are under the plain prompt.
_JUDGED = {
    "satisfactory": ("satisfactory answers (nats/token)", 1, "Mean log-prob of a token of held-out good answers."),
    "unsatisfactory": (
        "unsatisfactory answers (nats/token)",
        0,
        "The same of bad ones; most of their tokens are fine.",
    ),
    "margin": (
        "good minus bad answers (nats/token)",
        1,
        "How far the good answers are ahead; whole prompts resampled.",
    ),
    "wrong": ("known wrong tokens (nats/token)", -1, "Mean log-prob of the tokens that are known to be wrong."),
    "right": ("their right answers (nats/token)", 1, "Mean log-prob of a token of the right answers to these prompts."),
    "right_first": (
        "right answer likelier than wrong",
        1,
        "The share of wrong answers that the right one is ahead of.",
    ),
}


def _judged(summary: Mapping[str, Any]) -> list[Row]:
    built = []
    for key, (label, good, what) in _JUDGED.items():
        found = section(section(summary, "judged"), key)
        if number(found.get("after")) is None:
            continue
        scale, places, unit = (100, 0, " %") if key == "right_first" else (1, 2, "")
        low, high = found.get("ci95", (0.0, 0.0))
        told = 1 if low > 0 else -1 if high < 0 else 0
        tone = "plain" if not told * good else "good" if told == good else "bad"
        reading = f"{what} Over {found.get('answers')} held-out answers {_TOLD[told]}."
        before, after = (decimal(scale * found[side], places, unit=unit) for side in ("before", "after"))
        change = decimal(scale * found["difference"], places, sign=True, unit=unit)
        bounds = interval([scale * low, scale * high]) if "ci95" in found else ""
        built.append(Row(key, label, before, after, change, bounds, reading, tone))
    return built


_TOLD = {1: "it rose by more than chance explains", -1: "it fell by more than chance explains", 0: "no change is told"}


def share_reading(ends: Any, n: int) -> tuple[str, str]:
    """Whether a share of pairs ranked right is told apart from a coin's."""
    if not isinstance(ends, list):
        return "", "plain"
    low, high = ends
    if low > 0.5:
        return f"Of {n:,.0f} pairs, better than the 50 % of a coin.", "good"
    if high < 0.5:
        return f"Of {n:,.0f} pairs, worse than the 50 % of a coin.", "bad"
    return f"Of {n:,.0f} pairs, not told apart from the 50 % of a coin.", "plain"


def _pairs(summary: Mapping[str, Any]) -> list[Row]:
    return _held_out(
        summary,
        "pair",
        "the share in which training raised the chosen answer more than the rejected one",
        "Mean implicit reward of the chosen answer minus that of the rejected one, in nats times beta; 0 untrained.",
        coin=True,
    )


def _answers(summary: Mapping[str, Any]) -> list[Row]:
    return _held_out(
        summary,
        "answer",
        "the share whose implicit reward is on the right side of the step's statistic (KTO's KL, BCO's shift)",
        "How far the implicit reward is on the right side, in nats times beta, on average.",
    )


def _held_out(summary: Mapping[str, Any], noun: str, share: str, margin: str, coin: bool = False) -> list[Row]:
    """Accuracy and margin over the held-out pairs or answers (`noun`); `share` and `margin` say what the numbers are.

    `coin`: the share is compared with 50 %.
    """
    found = section(summary, f"{noun}s")
    accuracy, mean, n = number(found.get("accuracy")), number(found.get("margin")), number(found.get("n"))
    built = []
    if accuracy is not None:
        reading, tone, bounds = f"Of the held-out {noun}s, {share}.", "plain", ""
        if n:
            low, high = share_interval(accuracy, int(n))
            bounds = f"[{100 * low:.0f} %, {100 * high:.0f} %]"
            reading = f"Of {n:,.0f} held-out {noun}s, {share}."
            if coin:
                verdict = "better than" if low > 0.5 else "worse than" if high < 0.5 else "not told apart from"
                tone = "good" if low > 0.5 else "bad" if high < 0.5 else "plain"
                reading = f"{reading[:-1]}: {verdict} the 50 % of a coin."
        built.append(Row("accuracy", f"held-out {noun} accuracy", "", percent(accuracy), "", bounds, reading, tone))
    if mean is not None:
        built.append(Row("margin", f"held-out {noun} margin", "", decimal(mean), "", "", margin))
    return built


def _cost(summary: Mapping[str, Any]) -> list[Row]:
    cells = (
        ("steps", "optimizer steps", decimal(summary.get("steps"), 0)),
        ("seconds", "time", duration(summary.get("seconds"))),
        ("tokens_per_second", "speed (useful tokens/s)", decimal(summary.get("tokens_per_second"), 0)),
        ("peak_memory_mb", "peak memory", decimal(summary.get("peak_memory_mb"), 0, unit=" MB")),
    )
    return [Row(key, label, "", cell) for key, label, cell in cells if cell != NOTHING]


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested names and values as `train skipped`, `2`: one pair a leaf, in order, ready to show."""
    for key, value in mapping.items():
        name = f"{prefix}{visible(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        else:
            yield name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else visible(value)


def dotted(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (`training.learning_rate`, `4e-05`), one pair a leaf, in order."""
    found: list[tuple[str, str]] = []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            found += dotted(value, f"{prefix}{key}.")
        else:
            written = json.dumps(value) if value is None or isinstance(value, bool) else value  # as YAML has it
            found.append((f"{prefix}{key}", visible(written)))
    return found


def command(summary: Mapping[str, Any]) -> str:
    """The command that made the run: its overrides, or the recipe and seed where they were not recorded."""
    overrides = summary.get("overrides")
    if not isinstance(overrides, list) or not overrides:
        overrides = [f"recipe={summary.get('recipe', 'custom')}", f"seed={summary.get('seed', 0)}"]
    kept = (visible(override) for override in overrides if not str(override).startswith("output_dir="))
    words = " ".join(shlex.quote(override) for override in kept)
    return f"accelerate launch train.py {words}"
