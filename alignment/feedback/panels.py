"""Several judges as one: an ensemble that votes, and a pool of annotators of which one is drawn for each pair."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignment.feedback import checks
from alignment.feedback.adapters import as_judge, as_reward
from alignment.feedback.protocols import Context, Judge, Prompts, Reward
from alignment.feedback.wrappers import ask, draw, members

VOTES = ("mean", "votes", "majority")


@dataclass
class Ensemble:
    """Several rewards, or several judges, as one. A mix of both counts as judges.

    Judges, by `vote`, with weights w_i that are normalised over the members with a verdict on the pair:

    - mean: the weighted mean of their probabilities;
    - votes: the weighted mean of their votes, 1, 0.5 or 0 as P is above, at or below 1/2;
    - majority: 1 where that mean is above 1/2, 0 below, 0.5 at it.

    Rewards: the weighted mean of (score - centre_i) / scale_i, with the given `centres` and `scales` (see
    `standardised`) or without. They are settings and not the call's own mean and spread, which would let rows sway
    each other.

    A member's NaN is left out of its row, and counted: `counts["member without a verdict"]`. No member with a verdict
    is "no verdict".
    """

    of: list[Any]
    vote: str = "mean"
    weights: list[float] | None = None  # None: equal
    centres: list[float] | None = None
    scales: list[float] | None = None
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.of = members(self)
        rewards = all(isinstance(member, Reward) and not isinstance(member, Judge) for member in self.of)
        self.of = [as_reward(member) if rewards else as_judge(member) for member in self.of]
        checks.choice(self, "vote", VOTES)
        for name, low in (("weights", 0.0), ("centres", -math.inf), ("scales", 1e-12)):
            if getattr(self, name) is not None:
                checks.numbers(self, name, len(self.of), low)
                if not rewards and name != "weights":
                    raise checks.WrongSetting(self, name, "only rewards are standardised, and these are judges")
        if self.weights is not None and not sum(self.weights):
            raise checks.WrongSetting(self, "weights", "one of them must be greater than 0")
        if rewards and self.vote != "mean":
            raise checks.WrongSetting(self, "vote", "rewards have no votes, only a mean")
        if rewards:
            self.score = self._score
        else:
            self.prefer = self._prefer

    def _score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        columns = [member.score(prompts, completions, context) for member in self.of]
        centres, scales = self.centres or [0.0] * len(columns), self.scales or [1.0] * len(columns)
        columns = [[(x - c) / s for x in column] for column, c, s in zip(columns, centres, scales, strict=True)]
        return [self._mean(row) for row in zip(*columns, strict=True)]

    def _prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        columns = [member.prefer(prompts, first, second, context) for member in self.of]
        if self.vote != "mean":
            columns = [[vote(p) for p in column] for column in columns]
        means = [self._mean(row) for row in zip(*columns, strict=True)]
        return [vote(p) for p in means] if self.vote == "majority" else means

    def _mean(self, row: Sequence[float]) -> float:
        known = [(w, x) for w, x in zip(self.weights or [1.0] * len(row), row, strict=True) if not math.isnan(x)]
        self.counts["member without a verdict"] += len(row) - len(known)
        total = sum(w for w, _ in known)
        if not total:
            self.counts["no verdict"] += 1
            return math.nan
        return sum(w * x for w, x in known) / total


def vote(p: float) -> float:
    """1, 0.5 or 0 as `p` is above, at (within 1e-12) or below 1/2; NaN stays NaN."""
    return p if math.isnan(p) else 0.5 if abs(p - 0.5) < 1e-12 else float(p > 0.5)


def standardised(
    of: Sequence[Any], prompts: Prompts, completions: Sequence[str], context: Context = None
) -> dict[str, list[float]]:
    """`centres` and `scales` of an ensemble of rewards: mean and standard deviation (n) of each on these completions.

    A NaN is left out; a reward that says the same of all of them has scale 1, and one without any score centre 0.
    """
    columns = [np.asarray(as_reward(reward).score(prompts, completions, context), dtype=float) for reward in of]
    known = [column[~np.isnan(column)] for column in columns]
    centres = [float(column.mean()) if column.size else 0.0 for column in known]
    scales = [float(column.std()) if column.size else 0.0 for column in known]
    return {"centres": centres, "scales": [scale if scale > 1e-12 else 1.0 for scale in scales]}


@dataclass
class AnnotatorPool(Judge):
    """A pool of judges of which one, drawn by seed and content, labels each pair (AlpacaFarm, 2305.14387).

    Each member is asked for its own pairs in one call. The draw is the same for a pair in either order. AlpacaFarm's
    training labels are `noise` with rate 0.25 around a pool. `counts["annotator 2"]`: pairs that the second member
    got.
    """

    of: list[Any]
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.of = [as_judge(member) for member in members(self)]
        checks.number(self, "seed", whole=True)

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second), one for each pair."""
        # A seed of its own, so that noise of the same seed around the pool draws independently.
        drawn = [draw(f"pool {self.seed}", *row)[0] for row in zip(prompts, first, second, strict=True)]
        found = [math.nan] * len(drawn)
        for number, member in enumerate(self.of):
            rows = [row for row, chance in enumerate(drawn) if int(chance * len(self.of)) == number]
            self.counts[f"annotator {number + 1}"] += len(rows)
            for row, p in zip(rows, ask(member, rows, prompts, first, second, context), strict=True):
                found[row] = p
        return found
