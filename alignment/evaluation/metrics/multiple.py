"""Many comparisons at once: p-values of paired differences, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

_BATCH_VALUES = 2_000_000


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values (1979), in the order given, shape (m,).

    With p sorted upwards, the adjusted p_(i) is the highest of (m - j + 1) · p_(j) over j <= i, held at 1. Rejecting
    where it is at most 0.05 keeps the chance of one or more false rejections at 5 %, whatever hangs together with what.
    A NaN (no comparison) stays NaN and is not counted in m.

    Raises:
        ValueError: a value outside [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise ValueError("p-values must lie in [0, 1]")
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(values.shape, math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def paired_p_value(
    before: Sequence[float] | np.ndarray, after: Sequence[float] | np.ndarray, seed: int = 0, resamples: int = 4_999
) -> float:
    """Two-sided p-value of the mean of `after - before` being 0, by flipping the signs of the paired differences.

    The hypothesis is that which of the two a value came from is a coin's doing, prompt by prompt. Exact over all 2^n
    flips where those are no more than `resamples`; else over random ones, and then at least 2 / (resamples + 1). With n
    pairs it cannot be below 2 / 2^n: five pairs never reach 0.05.

    Args:
        before, after: one value per prompt, same order, shape (n,). A pair with a value that is not finite is left out.
            For a win rate against one half, `before` is all 0.5 and `after` the outcomes.

    Returns:
        NaN where no pair is left.

    Raises:
        ValueError: the two sequences differ in length.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"paired values must be two flat sequences of one length, not {first.shape}, {second.shape}")
    differences = second - first
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return math.nan
    differences = differences[differences != 0]  # a flipped 0 is 0: it changes no sum
    if len(differences) < 2:
        return 1.0
    found = stats.permutation_test(
        (differences,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _BATCH_VALUES // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
