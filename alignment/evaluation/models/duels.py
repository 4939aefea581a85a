"""The answers of several models, scored one by one and compared two by two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alignment.evaluation.models.answers import Answers
from alignment.evaluation.models.opinions import Opinion
from alignment.evaluation.models.verdicts import Question, VerdictFile

Scores = list[list[float]]  # of each prompt's answers; NaN is no verdict


@dataclass
class Duel:
    """Two models' answers compared, those of a prompt one after the other.

    Attributes:
        prompts: the prompt of each comparison, by its number.
        outcomes: what the first model won of it, the mean over both orders of 1, 0, or 0.5 for a tie; None: no verdict.
        lengths: characters of the first model's answer, and of the second's.
        disagree: comparisons in which the two orders name different winners.
        both_orders: False where the order cannot matter, since two scores are compared.
    """

    first: str
    second: str
    prompts: list[int] = field(default_factory=list)
    outcomes: list[float | None] = field(default_factory=list)
    lengths: list[tuple[int, int]] = field(default_factory=list)
    disagree: int = 0
    both_orders: bool = True

    def by_prompt(self, count: int) -> list[float]:
        """The mean outcome of each of `count` prompts; NaN without a verdict."""
        known: list[list[float]] = [[] for _ in range(count)]
        for prompt, outcome in zip(self.prompts, self.outcomes, strict=True):
            known[prompt] += [] if outcome is None else [outcome]
        return [sum(each) / len(each) if each else math.nan for each in known]

    def turned(self) -> Duel:
        """The same seen from the second model."""
        outcomes = [None if outcome is None else 1.0 - outcome for outcome in self.outcomes]
        lengths = [(b, a) for a, b in self.lengths]
        return Duel(self.second, self.first, self.prompts, outcomes, lengths, self.disagree, self.both_orders)


class _Row(NamedTuple):
    """The k-th answers of two models to a prompt."""

    pair: int
    prompt: int
    texts: tuple[str, str]


def all_scores(file: VerdictFile, models: Sequence[Answers]) -> dict[str, Scores]:
    """The score of every answer, by model."""
    found: dict[str, Scores] = {one.of.name: [[] for _ in one.said] for one in models}
    # Prompt by prompt: what stops half-way leaves all models with scores of the same prompts.
    questions = [
        Question(p, (said.text,), (one.of.name,))
        for p in range(len(file.asked))
        for one in models
        for said in one.said[p]
    ]
    for each, score in zip(questions, file.scores(questions), strict=True):
        found[each.models[0]][each.prompt].append(score)
    return found


def duels(file: VerdictFile, opinion: Opinion, pairs: Sequence[tuple[Answers, Answers]]) -> list[Duel]:
    """Each two models compared: the k-th answer of one with the k-th of the other, as many as both have.

    A judge is asked in both orders; without one of them there is no verdict. Of a reward, or a judge made of one, the
    scores are compared. Equal texts tie, and are not asked about.
    """
    rows = [
        _Row(number, p, (a.text, b.text))
        for p in range(len(file.asked))
        for number, (first, second) in enumerate(pairs)
        for a, b in zip(first.said[p], second.said[p], strict=False)
    ]
    names = [(first.of.name, second.of.name) for first, second in pairs]
    both = opinion.has_orders
    found = [Duel(*each, both_orders=both) for each in names]
    asked = iter(_verdicts(file, opinion, [row for row in rows if row.texts[0] != row.texts[1]], names, both))
    for row in rows:
        orders = (0.5, 0.5) if row.texts[0] == row.texts[1] else next(asked)
        ahead, after = (_side(p - 0.5) for p in orders)
        outcome, duel = (ahead + after) / 2, found[row.pair]
        duel.prompts.append(row.prompt)
        duel.outcomes.append(None if math.isnan(outcome) else outcome)
        duel.lengths.append((len(row.texts[0]), len(row.texts[1])))
        duel.disagree += abs(ahead - after) == 1
    return found


def _verdicts(
    file: VerdictFile, opinion: Opinion, rows: Sequence[_Row], names: Sequence[tuple[str, str]], both: bool
) -> list[tuple[float, float]]:
    """P(first ≻ second) of each row: as asked in this order, and as follows from the other one."""
    if opinion.compares:
        ahead = [Question(row.prompt, row.texts, names[row.pair]) for row in rows]
        if not both:
            return [(p, p) for p in file.preferences(ahead)]
        back = [Question(each.prompt, each.texts[::-1], each.models[::-1]) for each in ahead]
        # Side by side: what stops half-way leaves half of the rows with both orders.
        found = file.preferences([each for two in zip(ahead, back, strict=True) for each in two])
        return [(p, 1.0 - q) for p, q in zip(found[::2], found[1::2], strict=True)]
    singles = [
        Question(row.prompt, (text,), (name,))
        for row in rows
        for text, name in zip(row.texts, names[row.pair], strict=True)
    ]
    scores = file.scores(singles)
    sides = [_side(a - b) for a, b in zip(scores[::2], scores[1::2], strict=True)]
    return [(side, side) for side in sides]


def _side(ahead: float) -> float:
    """1 above zero, 0 below, 0.5 at it; NaN stays."""
    return ahead if math.isnan(ahead) else 0.5 + 0.5 * ((ahead > 0) - (ahead < 0))
