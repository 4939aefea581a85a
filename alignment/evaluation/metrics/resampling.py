"""Bootstrap weights of prompts, for statistics that are fitted anew in every resample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_BATCH_VALUES = 1_000_000  # weights held at a time (8 MB); bounds memory, never the result


def resampled(
    count: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0, resamples: int = 1_000
) -> np.ndarray:
    """`statistic` of `resamples` bootstrap resamples of `count` prompts, shape (resamples, …).

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
