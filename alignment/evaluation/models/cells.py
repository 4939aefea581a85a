"""The numbers of an evaluation, one cell each: what the tables, the JSON and the CSV are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from scipy import stats

from alignment.evaluation.agreement import Estimate, share
from alignment.evaluation.metrics.multiple import paired_p_value
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


Ratio = tuple[Sequence[float], Sequence[float]]  # what is summed above and below the line, a value a row


def ratio_cell(
    cell: tuple[str, str, str, str],
    own: Ratio,
    others: Ratio | None,
    seed: int = 0,
    shown: Callable[[Any], Any] | None = None,
) -> Cell:
    """Sum over sum (nats a token, say), its interval, and the difference from the baseline's over the same rows.

    Rows are resampled, those of both models together. p is of each row's own ratio.

    Args:
        shown: what is made of a ratio, such as its exponential; None: nothing.
    """

    def of(sums: np.ndarray) -> np.ndarray:
        found: np.ndarray = sums[..., 0] / sums[..., 1]
        return shown(found) if shown else found

    def apart(sums: np.ndarray) -> np.ndarray:
        return of(sums[..., :2]) - of(sums[..., 2:])

    rows = _known(*own)
    if not len(rows):
        return Cell(*cell, NAN)
    low, high = clustered_interval(rows, np.arange(len(rows)), of, seed)
    found = Cell(*cell, float(of(rows.sum(axis=0))), low, high, len(rows))
    if others is None or not len(both := _known(*own, *others)):
        return found
    low, high = clustered_interval(both, np.arange(len(both)), apart, seed)
    p = paired_p_value(both[:, 2] / both[:, 3], both[:, 0] / both[:, 1], seed)
    difference = float(apart(both.sum(axis=0)))
    return replace(found, difference=difference, difference_low=low, difference_high=high, p=p)


def _known(*columns: Sequence[float]) -> np.ndarray:
    """The columns side by side, without rows in which a value is not known or a divisor is 0: shape (rows, columns)."""
    rows = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    return rows[np.isfinite(rows).all(axis=1) & (rows[:, 1::2] > 0).all(axis=1)]


def by_prompt(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each prompt's known values; NaN where there is none."""
    known = [[value for value in row if math.isfinite(value)] for row in rows]
    return [sum(row) / len(row) if row else NAN for row in known]


def series_cell(
    cell: tuple[str, str, str, str],
    values: Sequence[float],
    others: Sequence[float] | None,
    seed: int = 0,
    is_share: bool = False,
) -> Cell:
    """A mean over prompts with its interval, and what lies between it and the baseline's over the same prompts.

    Args:
        cell: section, of, metric, model.
        values: one of each prompt, NaN where it is not known.
        others: the baseline's; None where this is the baseline, or it has none.
    """
    own = (share_of if is_share else mean)(values, seed)
    found = Cell(*cell, own.value, own.low, own.high, own.n)
    if others is None:
        return found
    apart = paired_difference(others, values, seed)
    p = paired_p_value(others, values, seed)
    return replace(found, difference=apart.difference, difference_low=apart.low, difference_high=apart.high, p=p)


def set_cell(
    cell: tuple[str, str, str, str],
    items: Sequence[T],
    others: Sequence[T] | None,
    measure: Callable[[Sequence[T]], float],
    counts: dict[str, float] | None = None,
) -> Cell:
    """A number of a whole set of items (one a prompt), at least 0, such as its distinct n-grams.

    Intervals and p are the jackknife's, over blocks of items: a bootstrap draws items twice, and so would lower what
    counts different ones. The difference from the baseline leaves out the same prompts of both.

    Args:
        others: the baseline's items, in the same order; None where this is the baseline.
    """
    value, without = _left_out(items, measure)
    low, high, _ = _jackknife(value, without)
    found = Cell(*cell, value, max(0.0, low) if low == low else low, high, len(items), counts=counts or {})
    if others is None:
        return found
    base, base_without = _left_out(others, measure)
    low, high, p = _jackknife(value - base, without - base_without)
    return replace(found, difference=value - base, difference_low=low, difference_high=high, p=p)


def _left_out(items: Sequence[T], measure: Callable[[Sequence[T]], float]) -> tuple[float, np.ndarray]:
    """(the measure of all items, that without each block of them); no blocks for fewer than two items."""
    blocks = min(BLOCKS, len(items))
    parts = [[each for at, each in enumerate(items) if at % blocks != block] for block in range(blocks)]
    return measure(items), np.asarray([measure(part) for part in parts] if blocks > 1 else [])


def _jackknife(value: float, without: np.ndarray) -> tuple[float, float, float]:
    """(low, high, two-sided p-value of 0) by Student's t; NaN where there is nothing to leave out."""
    blocks = len(without)
    if blocks < 2 or not math.isfinite(value):
        return NAN, NAN, NAN
    error = float(np.sqrt((blocks - 1) / blocks * np.square(without - without.mean()).sum()))
    reach = float(stats.t.ppf(0.975, blocks - 1)) * error
    if error == 0:
        return value, value, 1.0 if value == 0 else NAN
    return value - reach, value + reach, float(2 * stats.t.sf(abs(value) / error, blocks - 1))
