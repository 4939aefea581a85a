"""How often one model's answers win against another's."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from alignment.evaluation.agreement import share
from alignment.evaluation.statistics import share_interval


@dataclass(frozen=True)
class WinRate:
    """Counts of `model` against `baseline`, and its win rate in [0, 1]; `low` and `high` bound its 95 % interval.

    `wins`, `losses` and `ties` count outcomes above, below and at one half. `rate` is the mean of the outcomes, which
    is (wins + ties / 2) / (wins + losses + ties) where every outcome is 1, 0.5 or 0. What has no verdict is in
    `no_verdict` alone. NaN where nothing is known.
    """

    model: str
    baseline: str
    wins: int
    losses: int
    ties: int
    no_verdict: int
    rate: float
    low: float
    high: float

    @property
    def excludes_half(self) -> bool:
        """Whether the interval is defined and lies on one side of 0.5."""
        return self.low > 0.5 or self.high < 0.5


def win_rate(
    outcomes: Sequence[float | None],
    model: str = "model",
    baseline: str = "baseline",
    prompts: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> WinRate:
    """Win rate over `outcomes`, ties as a half.

    The interval is exact (Wilson's) where all outcomes are 0 or 1 and independent; with ties among them it is a
    bootstrap over prompts.

    Args:
        outcomes: of each comparison, in [0, 1]: the mean over both orders of 1 (won), 0 (lost) or 0.5 (tie), so that
            0.5 is also what is left where the orders disagree. None or NaN: no verdict.
        prompts: what each outcome's prompt is called; outcomes of one prompt are not independent, and are resampled
            together. None: each has a prompt of its own.
        seed: of the resampling.

    Raises:
        ValueError: an outcome outside [0, 1], or another number of prompts than of outcomes.
    """
    values = np.array([math.nan if value is None else value for value in outcomes], dtype=np.float64)
    known = ~np.isnan(values)
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise ValueError("outcomes must lie in [0, 1]: 1 won, 0.5 tie, 0 lost")
    groups = _groups(range(len(values)) if prompts is None else prompts)
    if len(groups) != len(values):
        raise ValueError(f"{len(values)} outcomes and {len(groups)} prompts: one for each is needed")
    seen, n = values[known], int(known.sum())
    alone = len(np.unique(groups[known])) == n
    if n and alone and np.isin(seen, (0.0, 1.0)).all():
        rate = float(seen.mean())
        low, high = share_interval(rate, n)
    else:
        rate, low, high, _ = share(values, groups, seed)
    counts = int((seen > 0.5).sum()), int((seen < 0.5).sum()), int((seen == 0.5).sum())
    return WinRate(model, baseline, *counts, len(values) - n, rate, low, high)


def _groups(prompts: Sequence[Hashable]) -> np.ndarray:
    """Equal names as equal whole numbers, shape (n,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in prompts], dtype=np.int64)
