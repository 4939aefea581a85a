"""An improver against Self-Refine, best-of-n at equal cost and sampling anew, over rounds and temperatures.

    python scripts/improve.py --out improve.jsonl --improver outputs/pit/RUN --gap outputs/pit_gap/RUN --policy RUN \
        --data everyday --split test --score plain_words --score outputs/reward/RUN --plot improve.png

Every way starts from the same answers: those of the data, or with --first the policy's. Best-of-n draws, for each
answer and round, as many tokens as the improver did, and picks by the gap. Win − lose is against the answer as it was,
judged by each --score: a reward, a judge, or the run of one. OUT holds every answer of every round; what is in it is
not made again, so the command may be stopped, started, and given other scores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.config import ModelConfig  # noqa: E402
from alignment.data.readers import load_examples  # noqa: E402
from alignment.errors import UserError  # noqa: E402
from alignment.evaluation.figure import new_figure, png  # noqa: E402
from alignment.evaluation.files import json_lines, write_atomically  # noqa: E402
from alignment.evaluation.text import decimal  # noqa: E402
from alignment.evaluation.win_lose import outcomes, win_lose  # noqa: E402
from alignment.feedback.adapters import label  # noqa: E402
from alignment.feedback.label import context_of  # noqa: E402
from alignment.feedback.named import feedback_named  # noqa: E402
from alignment.feedback.wrappers import Cached  # noqa: E402
from alignment.launch.quiet import quiet_libraries  # noqa: E402
from alignment.models.precision import settled_dtype  # noqa: E402
from alignment.rollouts.best_of import best_at_cost  # noqa: E402
from alignment.rollouts.improve import Improved  # noqa: E402
from alignment.rollouts.improve_file import OF, answers_of  # noqa: E402
from alignment.rollouts.improver import Improver, Improving, as_given_gap  # noqa: E402
from alignment.rollouts.proposers import Resampling  # noqa: E402

# name -> (way, rule, which model); best_of_n is made from what `improver` drew.
WAYS = {
    "improver": ("improver", "stop", "improver"),
    "improver_last": ("improver", "last", "improver"),
    "self_refine": ("self_refine", "last", "policy"),
    "self_refine_stop": ("self_refine", "stop", "policy"),
    "best_of_n": ("resample", "best", "policy"),
    "resample": ("resample", "last", "policy"),
}
JOB = ("way", "temperature", "seed")
# What the answers depend on besides: rows of OUT made with others are refused.
SHARED = ("improver", "gap", "policy", "data", "split", "of", "first", "limit", "rounds", "max_new_tokens", "dtype")

Row = dict[str, Any]


class Comparison:
    """The answers to improve, and the ways, made when they are asked for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        loaded = load_examples(arguments.data, split=arguments.split, format=arguments.format, limit=arguments.limit)
        examples, self.given = list(loaded.examples), None
        if not arguments.first:
            chosen = [(each, places[0]) for each in examples if (places := answers_of(each, arguments.of))]
            examples = [each for each, _ in chosen]
            self.given = [each.responses[place].text for each, place in chosen]
        if not examples:
            raise UserError(f"{arguments.data}: no answers to improve; --first takes the policy's")
        self.prompts = [example.prompt for example in examples]
        self.contexts = [context_of(example, arguments.reference) for example in examples]

    @cached_property
    def gap(self) -> Any:
        return as_given_gap(self.arguments.gap)

    @cached_property
    def answers(self) -> list[str]:
        """The answers as they were: the data's, or the policy's own."""
        if self.given is not None:
            return self.given
        policy = self.improver("resample", self.arguments.first_temperature, self.arguments.seeds[0])
        asked = [policy.template.asked(prompt) for prompt in self.prompts]
        found = policy.model.asker.ask(asked, policy.settings.seed)
        return [rollout.text if rollout else "" for rollout in found]

    def improver(self, way: str, temperature: float, seed: int) -> Improver:
        given = self.arguments
        kind, rule, model = WAYS[way]
        settings = Improving(
            way=kind,
            rule=rule if self.gap is not None else "last",
            rounds=given.rounds,
            max_new_tokens=given.max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=given.batch_size,
            dtype=given.dtype,
        ).as_trained(given.improver)  # the policy is asked as it was in the improver's training
        loaded, tokenizer = load(getattr(given, model), given.dtype)
        return Improver(loaded, self.gap, tokenizer=tokenizer, settings=settings)

    def run(self, way: str, temperature: float, seed: int, improver: Row | None) -> Row:
        """One row of OUT: every answer of every round. `improver`: its row, for best_of_n."""
        made = self.improver(way, temperature, seed)
        if way == "best_of_n":
            assert improver is not None
            budgets = [each["drawn"][1:] for each in improver["answers"]]
            policy = Resampling(made.model.asker, made.template)
            found = best_at_cost(self.prompts, self.answers, policy, self.gap, budgets, seed)
        else:
            found = made.improve(self.prompts, self.answers)
        rounds = range(self.arguments.rounds + 1)
        job = {"way": way, "temperature": temperature, "seed": seed}
        return job | shared(self.arguments) | {"answers": [_answer(each, rounds) for each in found]}


@cache
def load(name: str, dtype: str) -> tuple[Any, Any]:
    """(model on its device, tokenizer), once for all ways."""
    import torch

    from alignment.models.adapters import load_beside
    from alignment.models.loading import load_tokenizer

    config = ModelConfig(path=name, dtype=dtype)
    model = load_beside(config)
    return model.to("cuda") if torch.cuda.is_available() else model, load_tokenizer(config)


def shared(arguments: argparse.Namespace) -> Row:
    return {name: getattr(arguments, name) for name in SHARED}


def _answer(improved: Improved, rounds: range) -> Row:
    """The text that stands after each number of rounds, and what it cost until then."""
    return {
        "texts": [improved.after(number) for number in rounds],
        "drawn": [improved.drawn(number) for number in rounds],
        "read": [improved.read(number) for number in rounds],
        "candidates": max([each.proposal.candidates for each in improved.rounds], default=0),
        "stopped": improved.stopped,
    }


def results(rows: Sequence[Row], comparison: Comparison, score: str, feedback: Any) -> list[Row]:
    """Win − lose of every way, temperature and round against the answers as they were, over all seeds.

    After the last round also against the improver's own, at the same temperature and seed.
    """
    by_job: defaultdict[tuple[float, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_job[row["temperature"], row["way"]].append(row)
    found = []
    for (temperature, way), group in by_job.items():
        for number in range(1, comparison.arguments.rounds + 1):
            job = {"score": score, "way": way, "temperature": temperature, "round": number}
            found.append(job | _against(group, number, None, comparison, feedback))
        rivals = {row["seed"]: row for row in by_job[temperature, "improver"]} if way != "improver" else {}
        if rivals and all(row["seed"] in rivals for row in group):
            last = comparison.arguments.rounds
            job = {"score": score, "way": way, "temperature": temperature, "round": last}
            found.append(job | _against(group, last, rivals, comparison, feedback))
    return found


def _against(
    group: Sequence[Row], number: int, rivals: dict[int, Row] | None, comparison: Comparison, feedback: Any
) -> Row:
    answers = [answer for row in group for answer in row["answers"]]
    if rivals is None:
        old = [answer["texts"][0] for answer in answers]
    else:
        old = [answer["texts"][number] for row in group for answer in rivals[row["seed"]]["answers"]]
    new = [answer["texts"][number] for answer in answers]
    prompts, contexts = comparison.prompts * len(group), comparison.contexts * len(group)
    shares = win_lose(outcomes(feedback, prompts, new, old, contexts), prompts)
    cost = {name: statistics.fmean(answer[name][number] for answer in answers) for name in ("drawn", "read")}
    return {
        "against": "the answer as it was" if rivals is None else "improver",
        **asdict(shares),
        **cost,
        "candidates": statistics.fmean(answer["candidates"] for answer in answers),
        "seeds": len(group),
    }


def table(found: Sequence[Row]) -> str:
    """One Markdown table a score: win − lose in points with its interval, after each round."""
    rounds = max(row["round"] for row in found)
    lines = []
    for score in dict.fromkeys(row["score"] for row in found):
        head = ["temperature", "way", *(f"round {number}" for number in range(1, rounds + 1))]
        head += ["tokens drawn", "n", "against the improver"]
        lines += [f"\n{score}: win − lose, in points\n", _line(head), _line(["--:", "---", *["--:"] * (rounds + 3)])]
        mine = [row for row in found if row["score"] == score]
        for temperature, way in dict.fromkeys((row["temperature"], row["way"]) for row in mine):
            own = [row for row in mine if (row["temperature"], row["way"]) == (temperature, way)]
            first = [row for row in own if row["against"] != "improver"]
            rival = [row for row in own if row["against"] == "improver"]
            cells = [f"{temperature:g}", way, *map(_points, first), f"{first[-1]['drawn']:,.0f}"]
            cells += [f"{first[-1]['candidates']:.1f}" if way == "best_of_n" else ""]
            lines.append(_line([*cells, _points(rival[0]) if rival else ""]))
    answers = max(row["answers"] + row["no_verdict"] for row in found)
    return "\n".join([*lines, f"\n{answers} answers; in brackets the 95 % bootstrap interval over prompts."]).strip()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _points(row: Row) -> str:
    shown = decimal(100 * row["difference"], 0, sign=True)
    ends = [decimal(100 * row[end], 0, sign=True) for end in ("low", "high")]
    return f"{shown} [{ends[0]}, {ends[1]}]" if row["answers"] > 1 else shown


def plot(found: Sequence[Row], file: Path) -> None:
    """Win − lose over the tokens drawn: a row of panels a score, a panel a temperature, a line a way."""
    rows = [row for row in found if row["against"] != "improver"]
    scores, temperatures, ways = (
        list(dict.fromkeys(row[key] for row in rows)) for key in ("score", "temperature", "way")
    )
    figure = new_figure(4.2 * len(temperatures) + 1, 3.2 * len(scores))
    panels = figure.subplots(len(scores), len(temperatures), squeeze=False, sharex=True, sharey="row")
    for score, line in zip(scores, panels, strict=True):
        for temperature, axes in zip(temperatures, line, strict=True):
            axes.axhline(0, color="0.5", linewidth=0.8)
            for number, way in enumerate(ways):
                own = [r for r in rows if (r["score"], r["temperature"], r["way"]) == (score, temperature, way)]
                drawn, shares = [row["drawn"] for row in own], [100 * row["difference"] for row in own]
                errors = [[max(0.0, 100 * sign * (row["difference"] - row[end])) for row in own] for end, sign in ENDS]
                style = {"color": f"C{number}", "label": way}
                axes.errorbar(drawn, shares, errors, fmt="-o", ms=3.5, lw=1.2, elinewidth=0.7, capsize=2, **style)
            axes.set_title(f"{score}, temperature {temperature:g}", fontsize=9.5)
            axes.grid(alpha=0.3)
        line[0].set_ylabel("win − lose, points")
    for axes in panels[-1]:
        axes.set_xlabel("tokens drawn for an answer")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    write_atomically(file, png(figure))


ENDS = (("low", 1), ("high", -1))


def draw(arguments: argparse.Namespace, comparison: Comparison) -> list[Row]:
    """The rows of OUT that were asked for, those made that it lacks."""
    rows = list(json_lines(arguments.out)) if arguments.out.is_file() else []
    others = [row for row in rows if any(row.get(name) != getattr(arguments, name) for name in SHARED)]
    if others:
        name = next(name for name in SHARED if others[0].get(name) != getattr(arguments, name))
        raise UserError(
            f"{arguments.out} was made with {name}={others[0].get(name)}, not {getattr(arguments, name)}: another --out"
        )
    known = {tuple(row[name] for name in JOB): row for row in rows}
    wanted = [
        (way, temperature, seed)
        for temperature in arguments.temperatures
        for seed in arguments.seeds
        for way in arguments.ways
    ]
    for way, temperature, seed in wanted:
        if (way, temperature, seed) in known:
            continue
        rival = known.get(("improver", temperature, seed))
        if way == "best_of_n" and rival is None:
            raise UserError("best_of_n draws as many tokens as the improver: name improver before it in --ways")
        print(f"{way} at temperature {temperature:g}, seed {seed} …", file=sys.stderr, flush=True)
        row = known[way, temperature, seed] = comparison.run(way, temperature, seed, rival)
        with open(arguments.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return [known[job] for job in wanted]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a way, temperature and seed; added to")
    parser.add_argument("--improver", required=True, help="the model that is given an answer: a run, folder or name")
    parser.add_argument("--gap", help="a run of recipe=pit_gap or recipe=reward, or the name of feedback")
    parser.add_argument("--policy", help="the model of the other ways; the improver, where not given")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--format", default="auto")
    parser.add_argument(
        "--of", choices=OF[1:], default="worse", help="which answer of a prompt; better and worse: by its preferences"
    )
    parser.add_argument("--first", action="store_true", help="improve the policy's own answers, not the data's")
    parser.add_argument("--first-temperature", type=float, default=0.7)
    parser.add_argument("--limit", type=int, default=64, help="prompts, sampled")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--temperatures", default="0.4,0.8")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--ways", default="improver,improver_last,self_refine,best_of_n,resample")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", default="auto", help="of the weights")
    parser.add_argument(
        "--score", action="append", default=[], help="what judges: feedback by name, or a run; repeatable"
    )
    parser.add_argument(
        "--reference", help="the field of a row that holds its reference answer, for a score that wants one"
    )
    parser.add_argument("--json", type=Path, help="write every figure here, as JSON lines")
    parser.add_argument("--plot", type=Path, help="a PNG")
    arguments = parser.parse_args()
    arguments.dtype = settled_dtype(arguments.dtype)
    arguments.policy = arguments.policy or arguments.improver
    arguments.ways = arguments.ways.split(",")
    arguments.temperatures = [float(value) for value in arguments.temperatures.split(",")]
    arguments.seeds = [int(value) for value in arguments.seeds.split(",")]
    if not set(arguments.ways) <= set(WAYS):
        parser.error(f"--ways: known are {', '.join(WAYS)}")
    if not arguments.gap and set(arguments.ways) & {"improver", "best_of_n", "self_refine_stop"}:
        parser.error("--gap is needed by improver, best_of_n and self_refine_stop; improver_last goes without")
    return arguments


def main() -> int:
    arguments = parse()
    quiet_libraries()
    try:
        scores = {score: feedback_named(score) for score in arguments.score}  # before the work, not after it
        comparison = Comparison(arguments)
        rows = draw(arguments, comparison)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:  # an answer that stands for several rounds is scored once
        for score, feedback in scores.items():
            name = label(feedback) if Path(score).exists() else score
            if name in {row["score"] for row in found}:
                name += f" {Path(score).name}"
            found += results(rows, comparison, name, Cached(feedback, folder=folder))
    if arguments.json:
        write_atomically(arguments.json, "".join(json.dumps(row) + "\n" for row in found))
    if found:
        print(table(found))
        if arguments.plot:
            plot(found, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
