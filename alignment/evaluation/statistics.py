"""Intervals and standard errors for the numbers at the end of a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

# Values drawn at a time by the bootstrap: bounds its memory (16 MB), never its result.
_BATCH_VALUES = 2_000_000


@dataclass(frozen=True)
class Difference:
    """Mean of paired values before and after, and what lies between them.

    `low` and `high` bound the 95 % interval of `difference`; they are NaN where fewer than two pairs are left.
    `n` pairs were used, `dropped` pairs had a value that is not finite on either side.
    """

    before: float
    after: float
    difference: float
    low: float
    high: float
    n: int
    dropped: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is defined and lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def to_summary(self, name: str) -> dict[str, Any]:
        """The `score` entry of summary.json; keys without a meaning are left out."""
        entry: dict[str, Any] = {"name": name, "prompts": self.n}
        if self.n:
            entry |= {"before": self.before, "after": self.after, "difference": self.difference}
        if self.n > 1:
            entry["ci95"] = [self.low, self.high]
        if self.dropped:
            entry["dropped"] = self.dropped
        return entry


class MeanAndError(NamedTuple):
    """A mean and its standard error, in the unit of the values."""

    mean: float
    se: float


def paired_difference(
    before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = 10_000
) -> Difference:
    """Mean of `after - before` over pairs, with a 95 % paired bootstrap interval.

    Pairs (one per prompt) are resampled, so the spread between prompts cancels. The method is bias-corrected and
    accelerated (BCa): for skewed differences it covers better than plain percentiles. Where BCa is undefined (all
    resampled means on one side, a handful of pairs) the percentile interval is taken. If all differences are equal the
    interval is that one value: there is no spread to resample.

    Args:
        before, after: one value per prompt, same order, shape (n,). A pair in which either value is NaN or infinite
            ("no verdict") is dropped and counted.
        seed: of the resampling; the same seed gives the same interval.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: the two sequences differ in length.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"paired values must be two flat sequences of one length, not {first.shape} and {second.shape}"
        )
    kept = np.isfinite(first) & np.isfinite(second)
    dropped = int(kept.size - kept.sum())
    first, second = first[kept], second[kept]
    n = int(first.size)
    if n == 0:
        return Difference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, dropped)
    differences = second - first
    low, high = _interval(differences, seed, resamples)
    return Difference(float(first.mean()), float(second.mean()), float(differences.mean()), low, high, n, dropped)


def _interval(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of `values`, shape (n,)."""
    if values.size < 2:
        return math.nan, math.nan
    # Equal up to rounding counts as equal: 0.3 - 0.1 and 0.5 - 0.3 differ in the last bit.
    if np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return float(values.mean()), float(values.mean())
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns where BCa is undefined, and returns NaN
            interval = stats.bootstrap(
                (values,),
                np.mean,
                n_resamples=resamples,
                confidence_level=0.95,
                method=method,
                batch=max(1, _BATCH_VALUES // values.size),
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite(interval.low) and np.isfinite(interval.high):
            break
    return float(interval.low), float(interval.high)


def mean_and_se(values: Sequence[float] | np.ndarray) -> MeanAndError:
    """Mean and its standard error: sample standard deviation (n - 1) over the root of n.

    Nothing is dropped: a NaN among the values makes both results NaN, so that it is seen. Both are NaN for no values,
    the error alone for one.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return MeanAndError(math.nan, math.nan)
    if array.size == 1:
        return MeanAndError(float(array[0]), math.nan)
    return MeanAndError(float(array.mean()), float(array.std(ddof=1) / math.sqrt(array.size)))


def share_interval(share: float, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a share (in [0, 1]) that was counted over `n` independent cases."""
    counted = stats.binomtest(min(n, max(0, round(share * n))), n)
    interval = counted.proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def resampled(
    count: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, resamples: int = 1_000
) -> np.ndarray:
    """`statistic` of `resamples` bootstrap resamples of `count` prompts (or groups), shape (resamples, …).

    Args:
        statistic: how often each prompt was drawn, shape (b, count), whole numbers as float64 -> values, shape (b, …).
        seed: the same seed gives the same resamples.
    """
    rng = np.random.default_rng(seed)
    batch = max(1, _BATCH_VALUES // max(1, count))
    even = np.full(count, 1.0 / count)
    return np.concatenate(
        [
            statistic(rng.multinomial(count, even, size=min(batch, resamples - start)).astype(np.float64))
            for start in range(0, resamples, batch)
        ]
    )


def clustered_interval(
    rows: np.ndarray,
    groups: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
    resamples: int = 2_000,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `statistic` of the rows' sum, where rows of one group are not independent.

    Args:
        rows: shape (n, k). What is resampled are whole groups, with all of their rows.
        groups: the group of each row, shape (n,).
        statistic: sums of rows, shape (…, k), -> values, shape (…).
        seed: the same seed gives the same interval.

    Returns:
        (low, high); NaN for fewer than two groups, or where the statistic is not defined in half of the resamples.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1 if len(codes) else 0
    if count < 2:
        return math.nan, math.nan
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, codes, rows)
    values = resampled(count, lambda drawn: statistic(drawn @ sums), seed, resamples)
    values = values[np.isfinite(values)]
    if len(values) < resamples / 2:
        return math.nan, math.nan
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
