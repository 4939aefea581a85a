"""`align judge audit`: how far a judge agrees with people, and what else its verdicts depend on.

Every pair is put to the judge in both orders, and both verdicts count: a judge that always says "first" then agrees by
half, wherever a data set puts its better answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignment.data.example import Example, Message
from alignment.data.readers import load_examples
from alignment.errors import UserError
from alignment.evaluation.agreement import (
    Estimate,
    agreement,
    agreement_without_ties,
    between_annotators,
    cohens_kappa,
    cycles,
    logistic,
    share,
    sides,
    with_one_annotator,
)
from alignment.feedback.adapters import BradleyTerry, as_judge
from alignment.feedback.label import context_of
from alignment.resumable import progress


@dataclass
class Item:
    """Two answers to one prompt, and what people said: one P(first ≻ second) an annotator."""

    prompt: list[Message]
    first: str
    second: str
    votes: list[float] = field(default_factory=list)
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def human(self) -> float:
        """The mean of the votes."""
        return sum(self.votes) / len(self.votes)


@dataclass
class Verdicts:
    """What the judge said of n items: P(first ≻ second), NaN for no verdict."""

    forward: np.ndarray  # (n,) asked as (first, second)
    backward: np.ndarray  # (n,) asked as (second, first): P(second ≻ first)
    again: np.ndarray  # (n,) asked as (first, second) once more; NaN where it was not
    both_asked: bool = True  # False: the second order follows from the first, since the judge compares two scores


@dataclass
class Audit:
    """What was found out on one data set."""

    name: str
    items: int
    prompts: int
    estimates: dict[str, Estimate]
    counts: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; NaN becomes null."""
        found = {
            key: {name: None if value != value else value for name, value in estimate._asdict().items()}
            for key, estimate in self.estimates.items()
        }
        return {"data": self.name, "items": self.items, "prompts": self.prompts, **self.counts, "estimates": found}


def audit(
    feedback: Any,
    source: str,
    *,
    format: str = "auto",
    split: str = "train",
    limit: int | None = None,
    again: int = 100,
    batch_size: int = 32,
    reference: str | None = None,
    seed: int = 0,
) -> Audit:
    """Put every human-labelled pair of `source` to `feedback` (made a judge where it is none) and compare.

    Args:
        source, format, split: as for `load_examples`: preferences, or scores of several answers.
        limit: at most so many pairs, drawn with the seed.
        again: how many of them are asked a second time, for self-consistency.
        batch_size: pairs of one call.
        reference: the field of meta that is context["reference"].

    Raises:
        UserError: as `load_examples` does, or no labelled pair.
    """
    items = labelled_pairs(load_examples(source, format=format, split=split).examples, reference)
    if not items:
        raise UserError(f"{source}: no pair of answers in it that people have compared or scored")
    if limit is not None and limit < len(items):
        items = [items[at] for at in sorted(random.Random(seed).sample(range(len(items)), limit))]
    return measure(source, items, ask(as_judge(feedback), items, again, batch_size, seed), seed)


def labelled_pairs(examples: Iterable[Example], reference: str | None = None) -> list[Item]:
    """Every two different answers to a prompt on which there are preferences or, in an example without, two scores.

    Labels of the same two answers, in one row or in several, are votes of several annotators.
    """
    items: dict[tuple[str, frozenset[str]], Item] = {}
    for example in examples:
        texts = [answer.text for answer in example.responses]
        votes = [(given.first, given.second, given.p_first) for given in example.preferences]
        if not votes:
            scored = [(at, a.score) for at, a in enumerate(example.responses) if a.score is not None]
            votes = [(i, j, float(sides([0.5 + np.sign(a - b)])[0])) for i, a in scored for j, b in scored if i < j]
        for i, j, p_first in votes:
            if p_first != p_first or texts[i] == texts[j]:
                continue
            key = json.dumps(example.prompt, sort_keys=True), frozenset((texts[i], texts[j]))
            item = items.get(key)
            if item is None:
                item = items[key] = Item(example.prompt, texts[i], texts[j], [], context_of(example, reference))
            item.votes.append(p_first if item.first == texts[i] else 1.0 - p_first)
    return list(items.values())


def ask(judge: Any, items: Sequence[Item], again: int, batch_size: int, seed: int) -> Verdicts:
    """The judge's verdicts in both orders, and once more on `again` items drawn with the seed."""
    scores = isinstance(judge, BradleyTerry)  # then the other order is its own complement, and costs as much
    repeated = sorted(random.Random(seed).sample(range(len(items)), min(again, len(items))))
    everything = range(len(items))
    orders = [("forward", everything)] + ([] if scores else [("backward", everything)]) + [("again", repeated)]
    found = {name: np.full(len(items), np.nan) for name in ("forward", "backward", "again")}
    with progress("judging", 0, sum(len(chosen) for _, chosen in orders)) as advance:
        for name, chosen in orders:
            for start in range(0, len(chosen), batch_size):
                places = list(chosen[start : start + batch_size])
                batch = [items[at] for at in places]
                texts = [item.first for item in batch], [item.second for item in batch]
                first, second = reversed(texts) if name == "backward" else texts
                contexts = [item.context for item in batch]
                found[name][places] = judge.prefer([item.prompt for item in batch], first, second, contexts)
                advance(len(places))
    if scores:
        found["backward"] = 1.0 - found["forward"]
    return Verdicts(**found, both_asked=not scores)


def measure(name: str, items: Sequence[Item], verdicts: Verdicts, seed: int = 0) -> Audit:
    """Everything that `ROWS` shows, from the items and the verdicts on them."""
    prompts = [json.dumps(item.prompt, sort_keys=True) for item in items]
    group = np.unique(prompts, return_inverse=True)[1]
    human = sides([item.human for item in items])
    forward, backward = sides(verdicts.forward), sides(verdicts.backward)
    # Both orders below each other: as presented, so that "first" is the answer shown first.
    people, judge, groups = np.r_[human, 1 - human], np.r_[forward, backward], np.r_[group, group]
    longer = np.sign([len(item.first.split()) - len(item.second.split()) for item in items])
    right = agreement(people, judge)
    tells = np.r_[longer, longer] * np.r_[human - 0.5, human - 0.5]  # > 0: people prefer the longer answer
    votes = [item.votes for item in items]
    estimates = {
        "agreement": share(right, groups, seed),
        "agreement without ties": share(agreement_without_ties(people, judge), groups, seed),
        "kappa": cohens_kappa(people, judge, groups, seed),
        "human-human agreement": share(between_annotators(votes), group, seed),
        "agreement with one human": share(
            np.r_[with_one_annotator(forward, votes), with_one_annotator(1 - backward, votes)], groups, seed
        ),
        "first preferred": share(judge, groups, seed),
        "flips with the order": share(np.abs(forward - (1 - backward)), group, seed),
        "agreement, longer is better": share(np.where(tells > 0, right, np.nan), groups, seed),
        "agreement, shorter is better": share(np.where(tells < 0, right, np.nan), groups, seed),
        "length coefficient": _length(items, people, judge, groups),
        "same verdict again": share(agreement(forward, sides(verdicts.again)), group, seed),
        "no verdict": share(np.isnan(judge).astype(float), groups, seed),
    }
    found, triples = _cycles(items, group, (forward + (1 - backward)) / 2)
    estimates["circles"] = Estimate(found / triples if triples else np.nan, n=triples)
    counts = {"several annotators": sum(len(given) > 1 for given in votes), "human ties": int((human == 0.5).sum())}
    counts |= {"circles": found, "triples": triples}
    if not verdicts.both_asked:  # by construction, so not measured
        estimates |= {
            key: Estimate(value, n=0) for key, value in (("first preferred", 0.5), ("flips with the order", 0.0))
        }
    return Audit(name, len(items), int(group.max()) + 1, estimates, counts)


def _length(items: Sequence[Item], people: np.ndarray, judge: np.ndarray, groups: np.ndarray) -> Estimate:
    """Log-odds of "first" per standard deviation of the difference in words, at equal human verdict and position."""
    words = np.asarray([len(item.first.split()) - len(item.second.split()) for item in items], dtype=np.float64)
    spread = float(words.std())
    known = ~np.isnan(judge)
    if spread == 0 or not known.any():
        return Estimate(np.nan)
    x = np.stack([np.r_[words, -words] / spread, 2 * people - 1, np.ones(len(people))], axis=1)
    return logistic(x[known], judge[known], groups[known])[0]


def _cycles(items: Sequence[Item], group: np.ndarray, wins: np.ndarray) -> tuple[int, int]:
    """`cycles` over all prompts; `wins` is the mean side of both orders."""
    prompts: dict[int, dict[tuple[int, int], float]] = {}
    answers: dict[int, dict[str, int]] = {}
    for item, number, side in zip(items, group.tolist(), sides(wins).tolist(), strict=True):
        known = answers.setdefault(number, {})
        i, j = (known.setdefault(text, len(known)) for text in (item.first, item.second))
        prompts.setdefault(number, {})[i, j] = side
    counted = [cycles(verdicts) for verdicts in prompts.values()]
    return sum(found for found, _ in counted), sum(triples for _, triples in counted)
