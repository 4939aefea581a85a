"""The numbers of an evaluation, one cell each: what the tables, the JSON and the CSV are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from alignment.evaluation.agreement import Estimate, share
from alignment.evaluation.statistics import clustered_interval, paired_difference

T = TypeVar("T")
NAN = math.nan
BLOCKS = 10  # parts that a set is left without, one after the other, for the interval of a number of the whole set


@dataclass(frozen=True)
class Cell:
    """One number of one model, its 95 % interval, and how it lies to the baseline's. NaN: there is none."""

    section: str  # answers | score | judge | task
    of: str  # the score's, judge's or task's name; empty for answers
    metric: str
    model: str
    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0  # prompts, answers or pieces of text behind it
    difference: float = NAN  # from the baseline, over the prompts that both have
    difference_low: float = NAN
    difference_high: float = NAN
    p: float = NAN
    p_adjusted: float = NAN
    counts: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; NaN is null."""
        return {key: plain(value) for key, value in asdict(self).items()}


def plain(value: Any) -> Any:
    """`value` for JSON, which knows no NaN."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean over prompts with its bootstrap interval; a prompt without a value (NaN) is left out."""
    found = paired_difference(np.zeros(len(values)), values, seed)
    return Estimate(found.difference, found.low, found.high, found.n)


def share_of(values: Sequence[float], seed: int = 0) -> Estimate:
    """The same for values in [0, 1], where 0 and 1 of all prompts still have an interval."""
    return share(np.asarray(values, dtype=np.float64), np.arange(len(values)), seed)


def ratio(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Estimate:
    """Sum over sum (nats a token, say) with an interval over the rows, each of which is resampled as a whole."""
    rows = np.stack([np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)], axis=1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows) or not rows[:, 1].sum():
        return Estimate(NAN)

    def of(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    value = float(of(rows.sum(axis=0)))
    return Estimate(value, *clustered_interval(rows, np.arange(len(rows)), of, seed), len(rows))


def of_a_set(items: Sequence[T], measure: Callable[[Sequence[T]], float]) -> Estimate:
    """A number of a whole set, at least 0, such as its distinct n-grams; the jackknife's interval over blocks of items.

    A bootstrap draws items twice, and so would lower what counts different ones.
    """
    value = measure(items)
    blocks = min(BLOCKS, len(items))
    if blocks < 2 or not math.isfinite(value):
        return Estimate(value, n=len(items))
    without = [measure([each for at, each in enumerate(items) if at % blocks != block]) for block in range(blocks)]
    spread = np.asarray(without) - np.mean(without)
    error = float(np.sqrt((blocks - 1) / blocks * np.square(spread).sum()))
    reach = float(stats.t.ppf(0.975, blocks - 1)) * error
    return Estimate(value, max(0.0, value - reach), value + reach, len(items))
