"""The answers of several models, scored one by one and compared two by two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alignment.evaluation.models.answers import Answers
from alignment.evaluation.models.opinions import Opinion
from alignment.evaluation.models.verdicts import Question, VerdictFile
from alignment.feedback.adapters import BradleyTerry

Scores = list[list[float]]  # of each prompt's answers; NaN is no verdict


@dataclass
class Duel:
    """Two models' answers compared, prompt by prompt.

    Attributes:
        outcomes: of each of the P prompts the share that the first model wins of the answers compared, a tie being a
            half; None where there is no verdict, or one of both has no answer.
        answered: prompts that both have answered.
        compared: answers with a verdict.
        disagree: … of which the two orders name different winners.
        both_orders: False where the order cannot matter, since two scores are compared.
    """

    first: str
    second: str
    outcomes: list[float | None]
    answered: int = 0
    compared: int = 0
    disagree: int = 0
    both_orders: bool = True

    @property
    def no_verdict(self) -> int:
        """Prompts that both have answered, without a verdict."""
        return self.answered - sum(outcome is not None for outcome in self.outcomes)

    def turned(self) -> Duel:
        """The same seen from the second model."""
        outcomes = [None if outcome is None else 1.0 - outcome for outcome in self.outcomes]
        counts = self.answered, self.compared, self.disagree, self.both_orders
        return Duel(self.second, self.first, outcomes, *counts)


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

    A judge is asked in both orders, and its verdict is the mean of both; without one of them there is none. Of a
    reward, or a judge made of one, the scores are compared. Equal texts tie, and are not asked about.
    """
    rows = [
        _Row(number, p, (a.text, b.text))
        for p in range(len(file.asked))
        for number, (first, second) in enumerate(pairs)
        for a, b in zip(first.said[p], second.said[p], strict=False)
    ]
    names = [(first.of.name, second.of.name) for first, second in pairs]
    both = opinion.compares and not isinstance(opinion.feedback, BradleyTerry)
    found = [Duel(*each, [], both_orders=both) for each in names]
    asked = iter(_verdicts(file, opinion, [row for row in rows if row.texts[0] != row.texts[1]], names, both))
    sides: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        forward, backward = (0.5, 0.5) if row.texts[0] == row.texts[1] else next(asked)
        own = sides.setdefault((row.pair, row.prompt), [])
        mean = (forward + backward) / 2
        if not math.isnan(mean):
            own.append(_side(mean - 0.5))
            found[row.pair].compared += 1
            found[row.pair].disagree += (forward - 0.5) * (backward - 0.5) < 0
    for number, duel in enumerate(found):
        by_prompt = [sides.get((number, p)) for p in range(len(file.asked))]
        duel.answered = sum(each is not None for each in by_prompt)
        duel.outcomes = [sum(each) / len(each) if each else None for each in by_prompt]
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
