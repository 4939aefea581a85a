"""LLM judges: which of two answers is better, how good one is, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.data.example import Judgment
from alignment.feedback import checks
from alignment.feedback.asking import Asking, Verdict, references
from alignment.feedback.protocols import Context, Critic, Judge, Prompts, Reward
from alignment.feedback.templates import load_template
from alignment.feedback.wrappers import BothOrders


@dataclass(kw_only=True)
class PairwiseJudge(Asking, Judge):
    """P(first ≻ second) by a language model that sees both answers.

    By probabilities P = (p(A) + p(tie) / 2) / (p(A) + p(B) + p(tie)) of the next word after the verdict line's begin;
    by text P is 1, 0 or 0.5. With `both_orders` each pair is asked in both orders and P is the mean: a judge that
    prefers a place then finds a tie. A pair that lacks one of the two has no verdict.
    """

    template: str = "pairwise"  # a name of configs/judge, or a YAML file
    both_orders: bool = True

    def __post_init__(self) -> None:
        checks.flag(self, "both_orders")
        self._template = load_template(self.template, ("prompt", "first", "second"), ("reference",))
        if not all(0 <= value <= 1 for value in self._template.verdicts.values()):
            raise checks.WrongSetting(self, "template", "its verdicts must lie between 0 (second) and 1 (first)")
        super().__post_init__()
        self._judge: Judge = _OneOrder(self)
        if self.both_orders:
            self._judge = BothOrders(self._judge)
            self._judge.counts = self.counts

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        return self._judge.prefer(prompts, first, second, context)

    def in_one_order(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second) with the first answer as A and the second as B."""
        rows = zip(prompts, first, second, references(self._template, context, len(first)), strict=True)
        requests = [self._template.fill({"prompt": p, "first": a, "second": b, **known}) for p, a, b, known in rows]
        return [self.counted(verdict) for verdict in self.verdicts(requests, self._template)]


class _OneOrder(Judge):
    """A pairwise judge as it answers without `both_orders`."""

    def __init__(self, judge: PairwiseJudge) -> None:
        self.judge = judge

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        return self.judge.in_one_order(prompts, first, second, context)


@dataclass(kw_only=True)
class PointwiseScore(Asking, Reward):
    """One answer's grade, from 1 to 10 by the template `score`.

    By probabilities it is the expected grade, the mean of the grades weighted by P(grade); by text the one written.
    """

    template: str = "score"

    def __post_init__(self) -> None:
        self._template = load_template(self.template, ("prompt", "answer"), ("reference",))
        super().__post_init__()

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        requests = self.answer_requests(self._template, prompts, completions, context)
        return [self.counted(verdict) for verdict in self.verdicts(requests, self._template)]


@dataclass(kw_only=True)
class Critique(Asking, Critic):
    """A written review of one answer, and whether the answer is satisfactory.

    Without a verdict the judgment is empty: neither text nor `satisfactory`, since a review that was cut off or
    refused is no review.
    """

    template: str = "critique"

    def __post_init__(self) -> None:
        self._template = load_template(self.template, ("prompt", "answer"), ("reference",))
        super().__post_init__()

    def review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]:
        requests = self.answer_requests(self._template, prompts, completions, context)
        return [self._judgment(verdict) for verdict in self.written_verdicts(requests, self._template)]

    def _judgment(self, verdict: Verdict) -> Judgment:
        if math.isnan(self.counted(verdict)):
            return Judgment()
        return Judgment(verdict.text or None, verdict.value >= 0.5, self._chat.name)
