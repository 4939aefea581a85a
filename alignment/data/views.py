"""What each method reads out of examples. Every view also counts what it left out, and why."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from alignment.data.example import Example, Message, Preference, Response

Counts = dict[str, int]  # reason -> how many were left out (or, for "merged", folded into another)


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, and how sure it is that `chosen` is the better one."""

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    p_chosen: float = 1.0  # in (0.5, 1]
    margin: float | None = None  # difference of scores, in their unit
    objective: str | None = None  # what it is a preference for: the example's meta.objective, else its source


@dataclass(frozen=True)
class Unpaired:
    """One answer and whether it is a desirable one."""

    id: str
    prompt: list[Message]
    completion: list[Message]
    desirable: bool


@dataclass(frozen=True)
class Demonstration:
    """An answer to imitate."""

    id: str
    prompt: list[Message]
    completion: list[Message]


@dataclass(frozen=True)
class Judged:
    """One answer, what was written about it, and whether it satisfied."""

    id: str
    prompt: list[Message]
    completion: list[Message]
    judgment: str | None  # never blank
    satisfactory: bool
    meta: dict[str, Any] = field(default_factory=dict)  # the example's
    cut: bool = False  # sampled, and stopped before its end: no end is to be learnt from it


@dataclass(frozen=True)
class Improvement:
    """A reference answer and a better one."""

    id: str
    prompt: list[Message]
    reference: list[Message]
    better: list[Message]
    meta: dict[str, Any] = field(default_factory=dict)  # the example's

    def answers(self) -> list[ReferenceAnswer]:
        """Both answers as ones that are to be improved."""
        return [
            ReferenceAnswer(f"{self.id}:{kind}", self.prompt, answer, kind, self.meta)
            for kind, answer in (("rejected", self.reference), ("chosen", self.better))
        ]


@dataclass(frozen=True)
class ReferenceAnswer:
    """An answer that is to be improved."""

    id: str
    prompt: list[Message]
    answer: list[Message]
    kind: str  # rejected | chosen: which of a pair it is; policy: sampled
    known: dict[str, Any] = field(default_factory=dict)  # the example's meta

    @property
    def text(self) -> str:
        return "".join(message["content"] for message in self.answer)

    @property
    def meta(self) -> dict[str, Any]:
        """What feedback is told: the example's meta, and as `reference` the answer that is to be improved."""
        return {**self.known, "reference": self.text}


@dataclass(frozen=True)
class Prompt:
    """A prompt to be answered."""

    id: str
    messages: list[Message]
    meta: dict[str, Any] = field(default_factory=dict)  # what is known besides, such as a reference answer

    @property
    def prompt(self) -> list[Message]:
        return self.messages


def pairs(examples: Iterable[Example], *, rated: str = "all") -> tuple[list[Pair], Counts]:
    """Preferences, and scores where there are no preferences, as chosen and rejected.

    Several preferences over the same two responses of one example (several annotators) become one pair with their mean
    p_first and mean margin. An example without preferences gives pairs by score, with the difference as margin.

    Args:
        examples: any examples.
        rated: of scored responses, "all" pairs with different scores, or only "best_worst".

    Returns:
        (pairs, counts). Counted: "tie", "no verdict" (NaN), "identical" (both answers are the same text),
        "no preference" (examples that say nothing about two answers), and "merged" (annotators folded into another).
    """
    if rated not in ("all", "best_worst"):
        raise ValueError(f"rated={rated!r}: all or best_worst")
    found: list[Pair] = []
    counts: Counter[str] = Counter()
    for example in examples:
        preferences = example.preferences or _by_score(example.responses, rated)
        if not preferences:
            tied = len({response.score for response in example.responses if response.score is not None}) == 1
            counts["tie" if tied and len(example.responses) > 1 else "no preference"] += 1
        for preference in _merged(preferences, counts):
            first, second = example.responses[preference.first], example.responses[preference.second]
            if first.messages == second.messages:
                counts["identical"] += 1
            elif preference.p_first == 0.5:
                counts["tie"] += 1
            else:
                found.append(_pair(example, preference, first, second))
    return found, dict(counts)


def _pair(example: Example, preference: Preference, first: Response, second: Response) -> Pair:
    won = preference.p_first > 0.5
    chosen, rejected = (first, second) if won else (second, first)
    suffix = f":{preference.first}-{preference.second}" if len(example.responses) > 2 else ""
    return Pair(
        id=example.id + suffix,
        prompt=example.prompt,
        chosen=chosen.messages,
        rejected=rejected.messages,
        p_chosen=preference.p_first if won else 1.0 - preference.p_first,
        # A score difference is given as first minus second, a strength of preference without a sign.
        margin=None if preference.margin is None else abs(preference.margin),
        objective=example.meta.get("objective") or example.meta.get("source"),
    )


def _by_score(responses: list[Response], rated: str) -> list[Preference]:
    scored = [(index, response.score) for index, response in enumerate(responses) if response.score is not None]
    scored = [(index, score) for index, score in scored if not math.isnan(score)]
    if rated == "best_worst" and scored:
        best = max(scored, key=lambda item: item[1])
        worst = min(scored, key=lambda item: item[1])
        scored = [best, worst]
    return [Preference(i, j, float(a > b), abs(a - b)) for (i, a), (j, b) in combinations(scored, 2) if a != b]


def _merged(preferences: list[Preference], counts: Counter[str]) -> list[Preference]:
    """One preference for every two responses: the mean over annotators, a tie counting one half; NaN has no vote."""
    votes: defaultdict[tuple[int, int], list[Preference]] = defaultdict(list)
    for given in preferences:
        swap = given.first > given.second
        pair = (given.second, given.first) if swap else (given.first, given.second)
        votes[pair].append(Preference(*pair, 1.0 - given.p_first if swap else given.p_first, given.margin))
    merged = []
    for (first, second), given_votes in votes.items():
        known = [vote for vote in given_votes if not math.isnan(vote.p_first)]
        if not known:
            counts["no verdict"] += 1
            continue
        counts["merged"] += len(known) - 1
        # A margin is the strength of the verdict it came with, so it counts for that side.
        signed = [
            math.copysign(abs(vote.margin), vote.p_first - 0.5) if vote.p_first != 0.5 else 0.0
            for vote in known
            if vote.margin is not None
        ]
        p_first = sum(vote.p_first for vote in known) / len(known)
        merged.append(Preference(first, second, p_first, sum(signed) / len(signed) if signed else None))
    counts += Counter()  # drop the zeros
    return merged


def demonstrations(examples: Iterable[Example]) -> tuple[list[Demonstration], Counts]:
    """Answers to imitate: of an example the best one by score or preference, or its only one.

    Best is the highest score, or else the most preferences won; all answers that share it are taken. A single answer
    that is marked as undesirable, or judged not satisfactory, is left out. Counted: "not to imitate", "no answer" and
    "tie" (of several answers none is known to be better).
    """
    found: list[Demonstration] = []
    counts: Counter[str] = Counter()
    for example in examples:
        if not example.responses:
            counts["no answer"] += 1
            continue
        best = _best(example)
        if not best:
            counts["tie"] += 1
        for index in best:
            response = example.responses[index]
            bad = response.desirable is False or any(note.satisfactory is False for note in response.judgments)
            if bad:
                counts["not to imitate"] += 1
                continue
            suffix = f":{index}" if len(example.responses) > 1 else ""
            found.append(Demonstration(example.id + suffix, example.prompt, response.messages))
    return found, dict(counts)


def _best(example: Example) -> list[int]:
    """The responses to imitate; none where nothing tells several apart."""
    if len(example.responses) == 1:
        return [0]
    desirable = [index for index, response in enumerate(example.responses) if response.desirable]
    if desirable:
        return desirable
    ranks: dict[int, float] = {}
    for preference in example.preferences:
        if not math.isnan(preference.p_first):
            for index, share in ((preference.first, preference.p_first), (preference.second, 1 - preference.p_first)):
                ranks[index] = ranks.get(index, 0.0) + share - 0.5
    if not ranks:
        scored = {index: response.score for index, response in enumerate(example.responses)}
        ranks = {index: score for index, score in scored.items() if score is not None and not math.isnan(score)}
    if len(set(ranks.values())) < 2:
        return []
    return [index for index, rank in ranks.items() if rank == max(ranks.values())]


def unpaired(examples: Iterable[Example], *, from_pairs: bool = True) -> tuple[list[Unpaired], Counts]:
    """Single answers with a label; an example without labels gives, if asked, its pairs' answers as good and bad.

    Counted: "no label" (examples), and what `pairs` left out.
    """
    found: list[Unpaired] = []
    counts: Counter[str] = Counter()
    for example in examples:
        labelled = [
            (index, response) for index, response in enumerate(example.responses) if response.desirable is not None
        ]
        for index, response in labelled:
            suffix = f":{index}" if len(example.responses) > 1 else ""
            found.append(Unpaired(example.id + suffix, example.prompt, response.messages, bool(response.desirable)))
        if labelled:
            continue
        both, left_out = pairs([example]) if from_pairs else ([], {})
        counts.update({reason: count for reason, count in left_out.items() if reason != "no preference"})
        for pair in both:
            found.append(Unpaired(f"{pair.id}:chosen", pair.prompt, pair.chosen, True))
            found.append(Unpaired(f"{pair.id}:rejected", pair.prompt, pair.rejected, False))
        if not both:
            counts["no label"] += 1
    return found, dict(counts)


def improvements(examples: Iterable[Example]) -> tuple[list[Improvement], Counts]:
    """Every pair as (reference, better): the rejected answer is what is to be improved.

    Left out and counted: as in `pairs` (where both answers say the same but for outer white space, "identical"), "empty
    reference" (there is nothing to improve) and "empty better answer".
    """
    found: list[Improvement] = []
    counts: Counter[str] = Counter()
    for example in examples:
        both, left_out = pairs([example])
        counts.update(left_out)
        for pair in both:
            reference, better = (
                "".join(m["content"] for m in answer).strip() for answer in (pair.rejected, pair.chosen)
            )
            if not reference or not better:
                counts["empty better answer" if reference else "empty reference"] += 1
            elif reference == better:
                counts["identical"] += 1
            else:
                found.append(Improvement(pair.id, pair.prompt, pair.rejected, pair.chosen, example.meta))
    return found, dict(counts)


def reference_answers(examples: Iterable[Example]) -> tuple[list[ReferenceAnswer], Counts]:
    """Both answers of every improvement, each once for a prompt. Counted: as in `improvements`, and "repeated"."""
    pairs_found, counts = improvements(examples)
    found: dict[tuple[str, str], ReferenceAnswer] = {}
    repeated = 0
    for answer in (answer for pair in pairs_found for answer in pair.answers()):
        repeated += found.setdefault((json.dumps(answer.prompt, sort_keys=True), answer.text), answer) is not answer
    return list(found.values()), counts | ({"repeated": repeated} if repeated else {})


def prompts(examples: Iterable[Example]) -> tuple[list[Prompt], Counts]:
    """Every prompt once, in order of first appearance. Counted: "repeated"."""
    found: dict[str, Prompt] = {}
    counts: Counter[str] = Counter()
    for example in examples:
        key = json.dumps(example.prompt, sort_keys=True)
        if key in found:
            counts["repeated"] += 1
        else:
            found[key] = Prompt(example.id, example.prompt, example.meta)
    return list(found.values()), dict(counts)
