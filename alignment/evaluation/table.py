"""The end-of-run table as data: one row a number, with what it says in plain words.

The terminal, the report and the model card show these rows, so that they never disagree.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from alignment.evaluation.statistics import share_interval
from alignment.evaluation.text import NOTHING, decimal, duration, interval, number, percent, plus_minus, visible

# A fall of the answers' mean log-prob per token under the reference (nats) beyond which they stop being good English.
FLUENCY_LIMIT = 0.5


@dataclass(frozen=True)
class Row:
    """One line of the table. Cells are ready to show; an empty one has no meaning in this row."""

    key: str
    label: str
    before: str = ""
    after: str = ""
    difference: str = ""
    interval: str = ""
    reading: str = ""  # one or two sentences in plain words
    tone: str = "plain"  # good | bad | plain


def section(summary: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`, empty where it is absent or something else."""
    value = summary.get(key)
    return value if isinstance(value, Mapping) else {}


def rows(summary: Mapping[str, Any]) -> list[Row]:
    """The rows of `summary` (see summary.py for its keys) in the order in which they are read."""
    built = [
        _score(summary),
        _feedback(summary),
        _imitation(summary),
        *_ranking(summary),
        _length(summary),
        _fluency(summary),
        *_pairs(summary),
        *_answers(summary),
        _kl(summary),
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
    """What an online run was trained on, beside the score that it was not."""
    found = section(summary, "feedback")
    name = f"trained on: {visible(found.get('name', 'feedback'))}"
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
    reading = "What the run was trained to raise, of the same held-out answers."
    return Row("feedback", name, *cells, bounds, f"{reading} {_beside(summary, found)}".strip())


def _beside(summary: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Whether the score, which was not trained on, went along with the feedback that was."""
    ends, others, even = found.get("ci95"), section(summary, "score").get("ci95"), 0.5 if "wins" in found else 0.0
    if not isinstance(ends, list) or not isinstance(others, list) or ends[0] <= even:
        return ""
    if others[1] < 0:
        return "It rose while the score fell: the feedback is being played. Stop earlier, or hold on to the reference."
    return "The score rose with it." if others[0] > 0 else "The score does not show the same: read the samples."


def _length(summary: Mapping[str, Any]) -> Row | None:
    length = section(summary, "length")
    before, after = number(length.get("before")), number(length.get("after"))
    if before is None or after is None:
        return None
    reading = ""
    if before > 0:
        change = after / before - 1
        direction = "longer" if change > 0 else "shorter"
        same = "The answers kept their length."
        reading = same if abs(change) < 0.005 else f"The answers are {100 * abs(change):.0f} % {direction}."
    return Row(
        "length",
        "answer length (tokens)",
        decimal(before, 1),
        decimal(after, 1),
        decimal(after - before, 1, sign=True),
        "",
        reading,
    )


def _fluency(summary: Mapping[str, Any]) -> Row | None:
    fluency = section(summary, "fluency")
    before, after = number(fluency.get("before")), number(fluency.get("after"))
    if before is None or after is None:
        return None
    change = after - before
    reading, tone = _fluency_reading(change)
    return Row(
        "fluency",
        "fluency (nats per token)",
        decimal(before),
        decimal(after),
        decimal(change, sign=True),
        "",
        reading,
        tone,
    )


def _fluency_reading(change: float) -> tuple[str, str]:
    what = "The answers' mean log-prob per token under the reference model"
    if change < -FLUENCY_LIMIT:
        return (
            f"{what} fell by {-change:.2f} nats, more than {FLUENCY_LIMIT}: answers drifted from good English. "
            "Read the samples; a lower training.learning_rate or a higher loss.beta holds the model closer.",
            "bad",
        )
    if change > FLUENCY_LIMIT:
        return (
            f"{what} rose by {change:.2f} nats: they became more predictable. That can be plain writing or repetition; "
            "read the samples.",
            "plain",
        )
    moved = f"{'fell' if change < 0 else 'rose'} by {abs(change):.2f} nats" if abs(change) >= 0.005 else "did not move"
    return f"{what} {moved} (a fall of up to {FLUENCY_LIMIT} is allowed): they read about as before.", "good"


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


def _kl(summary: Mapping[str, Any]) -> Row | None:
    kl = section(summary, "kl")
    if number(kl.get("mean")) is None:
        return None
    reading = (
        "How far the answers moved from the reference model, summed over one answer, ± its standard error. "
        "Zero is no movement."
    )
    return Row("kl", "KL to reference (nats)", "", plus_minus(kl.get("mean"), kl.get("se")), "", "", reading)


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
