"""`align label`: answers in, example records with what a feedback object says of them out, batch by batch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from alignment.data.example import Example, Preference, Response
from alignment.data.examples import Examples
from alignment.data.readers import load_examples
from alignment.errors import UserError, nearest, unknown
from alignment.feedback.adapters import as_feedback, as_judge, as_reward, close, counts_of
from alignment.feedback.build import build_feedback
from alignment.feedback.protocols import Reward
from alignment.feedback.ranks import over_ranks
from alignment.feedback.wrappers import settings_of
from alignment.resumable import OneProcess

WAYS = ("score", "prefer", "review")  # the methods of Reward, Judge and Critic
PAIRS = ("all", "adjacent", "best_worst")
# Entries of meta that say where an example comes from, not what is known of it.
_PLACE = ("id", "source", "row", "origin", "sampled", "fields")


@dataclass(frozen=True)
class Labelling:
    """What is asked about the answers."""

    way: str | None = None  # of WAYS; None: the one that the feedback can
    # For prefer: of PAIRS, or a number of random pairs a prompt. best_worst goes by a reward's own scores; for a judge,
    # by the scores that are there.
    pairs: str = "all"
    reference: str | None = None  # the field of meta that is context["reference"]
    keep: bool = False  # keep the labels that are there
    batch_size: int = 16  # prompts whose answers are asked about, and written, together
    seed: int = 0  # of random pairs, and of `limit`

    def __post_init__(self) -> None:
        if self.way is not None and self.way not in WAYS:
            raise unknown("way of labelling", self.way, WAYS)
        if self.pairs not in PAIRS and not (self.pairs.isdecimal() and int(self.pairs) > 0):
            raise UserError(f"pairs={self.pairs}: known are {', '.join(PAIRS)}, or a number of random pairs a prompt")
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}: must be at least 1")


def label_file(
    source: Any,
    out: Path,
    feedback: Mapping[str, Any],
    labelling: Labelling,
    *,
    format: str = "auto",
    split: str = "train",
    limit: int | None = None,
    overwrite: bool = False,
    processes: OneProcess | None = None,
) -> tuple[str, Counter[str]]:
    """Ask `feedback` about the answers of `source` and write the labelled examples to `out`.

    Args:
        source, format, split, limit: as for `load_examples`. Examples with too few answers are left out and counted.
        out: ends in .jsonl; what is there of the same work is gone on with.
        feedback: settings for `build_feedback`.
        overwrite: begin anew.
        processes: those of the launch, among which each batch is shared out; None: this one alone.

    Returns:
        (the way of labelling, sums over the whole file as `describe` reads them).

    Raises:
        UserError: as `load_examples`, `build_feedback` and `ResumableFile` do; no answers; a way that it cannot.
    """
    loaded = load_examples(source, format=format, split=split, limit=limit, seed=labelling.seed)
    judge = build_feedback(feedback)
    way = choose_way(judge, labelling.way)
    usable, mark = _usable(loaded.examples, way, labelling.reference, str(source))
    settings = {
        "command": "label",
        "feedback": feedback,
        "what stands behind it": identity_of(judge),
        "examples": mark,
        **dataclasses.asdict(dataclasses.replace(labelling, way=way)),
    }
    processes = processes or OneProcess()
    file = processes.file(out, settings, overwrite=overwrite, sources=[str(source)])
    labeller = Labeller(over_ranks(judge) if processes.size > 1 else judge, str(feedback["name"]), way, labelling)

    def hint() -> str:
        return f"stopped: {file.totals['prompts']} of {len(usable)} prompts are in {out}; the same command goes on"

    try:
        with processes.stoppable(hint), processes.progress("labelling", file.totals["prompts"], len(usable)) as advance:
            for start in range(file.batches * labelling.batch_size, len(usable), labelling.batch_size):
                batch = [loaded.examples[at] for at in usable[start : start + labelling.batch_size]]
                file.add(*labeller.label(batch))
                advance(len(batch))
                processes.after_batch()
    finally:
        file.close()
        close(judge)
    totals = Counter(file.totals)
    totals["left out"] = len(loaded.examples) - len(usable)
    return way, totals


def choose_way(feedback: Any, asked: str | None) -> str:
    """What is asked of `feedback`: one of WAYS. A judge can score and a reward prefer; neither writes judgments."""
    own = [way for way in WAYS if callable(getattr(feedback, way, None))]
    if asked is None and len(own) > 1:
        raise UserError(f"this feedback can {' and '.join(own)}: say which with --as")
    if asked == "review" and "review" not in own:
        raise UserError(f"--as review: this feedback writes no judgments, it can {' and '.join(own)}")
    return asked or own[0]


def context_of(example: Example, reference: str | None = None) -> dict[str, Any]:
    """What is known of the example besides its texts: the fields of its row, one of them also as "reference"."""
    fields = example.meta.get("fields")
    known = {key: value for key, value in example.meta.items() if key not in _PLACE}
    known |= fields if isinstance(fields, dict) else {}
    return known | ({"reference": known[reference]} if reference in known else {})


def identity_of(feedback: Any) -> str | None:
    """A digest of all that a verdict depends on, one's own code included; None where it has no plain form."""
    try:
        return hashlib.blake2b(json.dumps(settings_of(feedback)).encode(), digest_size=8).hexdigest()
    except UserError:
        return None


def _usable(examples: Examples, way: str, reference: str | None, source: str) -> tuple[list[int], str]:
    """(the examples with enough answers, by number; a digest of all that is asked about)."""
    found: list[int] = []
    fields: set[str] = set()
    digest = hashlib.blake2b(digest_size=8)
    for number, example in enumerate(examples):
        if len(example.responses) > (way == "prefer"):
            known = context_of(example)
            found.append(number)
            fields |= known.keys()
            scores = [response.score for response in example.responses]
            digest.update(json.dumps([example.id, known, scores], sort_keys=True, default=str).encode())
    if not found:
        what = "two answers to one prompt" if way == "prefer" else "answers"
        raise UserError(f"{source}: no {what} in its {len(examples)} examples, so there is nothing to label")
    if reference is not None and reference not in fields:
        raise UserError(f"reference={reference}: no example has that field; {nearest(reference, fields)}")
    return found, digest.hexdigest()


class Labeller:
    """Asks one feedback object about batches of examples.

    Args:
        feedback: with the method of `way`, or one that an adapter makes it of.
        name: annotator of judgments that name none.
        way: of WAYS.
    """

    def __init__(self, feedback: Any, name: str, way: str, labelling: Labelling) -> None:
        self.feedback, self.name, self.way, self.labelling = feedback, name, way, labelling
        adapter: Any = {"score": as_reward, "prefer": as_judge}.get(way, as_feedback)
        self.asked: Any = adapter(feedback)

    def label(self, examples: Sequence[Example]) -> tuple[list[dict[str, Any]], Counter[str]]:
        """The labelled examples as rows to write, and what is to be added to the sums."""
        before = counts_of(self.feedback)
        totals: Counter[str] = Counter(prompts=len(examples))
        if self.way == "prefer" and self.labelling.pairs == "best_worst" and isinstance(self.feedback, Reward):
            answers, asked = self._each(examples)
            for answer, score in zip(answers, self.feedback.score(*asked), strict=True):
                answer.score = float(score) if math.isfinite(score) else None
        pairs = [self.pairs_of(example, totals) if self.way == "prefer" else [] for example in examples]
        if not self.labelling.keep:
            for example in examples:
                example.preferences = []
                example.responses = [Response(answer.messages, source=answer.source) for answer in example.responses]
        if self.way == "prefer":
            self._prefer(examples, pairs, totals)
        else:
            {"score": self._score, "review": self._review}[self.way](examples, totals)
        totals.update({f"count {name}": value - before[name] for name, value in counts_of(self.feedback).items()})
        return [example.to_dict() for example in examples], totals

    def pairs_of(self, example: Example, totals: Counter[str]) -> list[tuple[int, int]]:
        """The answers to compare; the same two texts are compared once, and a text never with itself."""
        way, texts = self.labelling.pairs, [answer.text for answer in example.responses]
        scored = [(a.score, at) for at, a in enumerate(example.responses) if a.score is not None]
        if way == "best_worst":
            best, worst = max(scored, default=(0, 0)), min(scored, default=(0, 0))
            chosen = [(min(best[1], worst[1]), max(best[1], worst[1]))] if best[0] != worst[0] else []
            totals["prompts without a best and a worst score"] += not chosen
        else:
            chosen = list(pairwise(range(len(texts))) if way == "adjacent" else combinations(range(len(texts)), 2))
        found: dict[frozenset[str], tuple[int, int]] = {}
        for i, j in chosen:
            both = frozenset((texts[i], texts[j]))
            totals["pairs of the same text"] += len(both) == 1
            totals["pairs repeated"] += both in found
            if len(both) == 2:
                found.setdefault(both, (i, j))
        kept = list(found.values())
        if way.isdecimal() and int(way) < len(kept):
            kept = sorted(random.Random(f"{self.labelling.seed}-{example.id}").sample(kept, int(way)))
        return kept

    def _prefer(
        self, examples: Sequence[Example], pairs: Sequence[Sequence[tuple[int, int]]], totals: Counter[str]
    ) -> None:
        rows = [(example, i, j) for example, own in zip(examples, pairs, strict=True) for i, j in own]
        if not rows:
            return
        found = self.asked.prefer(
            [example.prompt for example, _, _ in rows],
            [example.responses[i].text for example, i, _ in rows],
            [example.responses[j].text for example, _, j in rows],
            [context_of(example, self.labelling.reference) for example, _, _ in rows],
        )
        for (example, i, j), value in zip(rows, found, strict=True):
            p_first = float(value)
            if math.isnan(p_first):
                totals["no verdict"] += 1
                continue
            if not 0 <= p_first <= 1:
                raise UserError(f"{self.name} gave P(first better) = {p_first}, which is not in [0, 1]")
            example.preferences.append(Preference(i, j, p_first))
            totals.update({"labelled": 1, "ties": p_first == 0.5, "sum": abs(p_first - 0.5)})

    def _each(self, examples: Sequence[Example]) -> tuple[list[Response], tuple[Any, Any, Any]]:
        """Every answer, and (prompts, completions, context) to ask about them."""
        rows = [(example, answer) for example in examples for answer in example.responses]
        contexts = [context_of(example, self.labelling.reference) for example, _ in rows]
        answers = [answer for _, answer in rows]
        return answers, ([example.prompt for example, _ in rows], [answer.text for answer in answers], contexts)

    def _score(self, examples: Sequence[Example], totals: Counter[str]) -> None:
        answers, asked = self._each(examples)
        if hasattr(self.asked, "parts"):  # the terms that the score is the sum of, so it is not asked for again
            parts = self.asked.parts(*asked)
            scores = [sum(terms) for terms in zip(*parts.values(), strict=True)]
        else:
            parts, scores = {}, self.asked.score(*asked)
        for answer, value in zip(answers, scores, strict=True):
            score = float(value)
            answer.score = score if math.isfinite(score) else None
            totals.update({"labelled": 1, "sum": score} if math.isfinite(score) else {"no verdict": 1})
        totals["ties"] += sum(
            len(example.responses) > 1 and len({answer.score for answer in example.responses}) == 1
            for example in examples
        )
        for name, values in parts.items():
            known = [float(value) for value in values if math.isfinite(value)]
            totals.update({f"part {name}": sum(known), f"part of {name}": len(known)})

    def _review(self, examples: Sequence[Example], totals: Counter[str]) -> None:
        answers, asked = self._each(examples)
        for answer, judgment in zip(answers, self.asked.review(*asked), strict=True):
            if judgment.text is None and judgment.satisfactory is None:
                totals["no verdict"] += 1
                continue
            answer.judgments.append(dataclasses.replace(judgment, annotator=judgment.annotator or self.name))
            totals.update({"labelled": 1, "satisfactory": bool(judgment.satisfactory)})
            if answer.desirable is None:  # what methods of single answers read
                answer.desirable = judgment.satisfactory


def describe(way: str, totals: Mapping[str, float]) -> list[tuple[str, str]]:
    """The table at the end of the command: what was counted, and how much of it."""
    labelled = totals.get("labelled", 0)
    what = {"score": "answers scored", "prefer": "pairs compared", "review": "answers judged"}[way]
    rows = [("prompts", f"{totals.get('prompts', 0):,}"), (what, f"{labelled:,}")]
    rows += [("no verdict", f"{totals.get('no verdict', 0):,}")]
    if way != "review":
        rows += [("ties" if way == "prefer" else "prompts whose answers tie", f"{totals.get('ties', 0):,}")]
    if labelled:
        mean = totals.get("satisfactory" if way == "review" else "sum", 0) / labelled
        name = {"score": "mean score", "prefer": "mean |P(first) - 1/2|", "review": "satisfactory"}[way]
        rows += [(name, f"{mean:.1%}" if way == "review" else f"{mean:.3f}")]
    for key, value in totals.items():
        if key.startswith("part of ") and value:
            name = key.removeprefix("part of ")
            rows.append((f"  mean {name}", f"{totals[f'part {name}'] / value:.3f}"))
        elif key.startswith("count ") and value:
            rows.append((f"  {key.removeprefix('count ')}", f"{value:,}"))
        elif value and key.startswith(("pairs", "prompts without", "left out")):
            rows.append(("examples with too few answers" if key == "left out" else key, f"{value:,}"))
    return rows
