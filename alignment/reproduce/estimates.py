"""A figure with its interval, over the prompts that were asked and the seeds that were trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from alignment.evaluation.statistics import share_interval

Statistic = Callable[[np.ndarray], np.ndarray]  # weights of the prompts (P,) -> one value a seed (S,)


class Estimate(NamedTuple):
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


NOT_MEASURED = Estimate(math.nan, math.nan, math.nan)


def exact(value: float) -> Estimate:
    """A figure that nothing random is in."""
    return Estimate(float(value), float(value), float(value))


def estimate(statistic: Statistic, prompts: int, seed: int = 0, resamples: int = 1000) -> Estimate:
    """The mean over seeds of a statistic, with a 95 % interval.

    One seed: percentiles of the statistic over resampled prompts; what another training run would give is not in it.
    Several: the variance over resampled prompts (of the mean over seeds) plus that between seeds over their number,
    with Student's t and Satterthwaite's degrees of freedom: two or three seeds that differ say little. What is left of
    the noise of single answers is counted in both, so the interval is a little too wide rather than too narrow.
    """
    whole = np.asarray(statistic(np.ones(prompts)), dtype=float)
    value = float(whole.mean())
    if not math.isfinite(value) or prompts < 2:
        return NOT_MEASURED
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples).astype(float)
    means = np.array([np.mean(statistic(weights)) for weights in drawn])
    means = means[np.isfinite(means)]
    if len(means) < resamples / 2:
        return NOT_MEASURED
    if len(whole) == 1:
        return Estimate(value, *(float(end) for end in np.percentile(means, [2.5, 97.5])))
    over_prompts, over_seeds = float(means.var(ddof=1)), float(whole.var(ddof=1)) / len(whole)
    variance = over_prompts + over_seeds
    if variance == 0:
        return exact(value)
    freedom = variance**2 / (over_seeds**2 / (len(whole) - 1) + over_prompts**2 / (prompts - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


Values = Sequence[Sequence[float]] | np.ndarray  # (S, P): one a seed and prompt


def mean_of(values: Values) -> Estimate:
    """The mean of one value a seed and prompt, (S, P). NaN ("no verdict") is left out."""
    table = np.asarray(values, dtype=float)
    if not table.size:
        return NOT_MEASURED

    def mean(weights: np.ndarray) -> np.ndarray:
        known = np.isfinite(table) * weights
        with np.errstate(invalid="ignore"):
            return (np.nan_to_num(table) * known).sum(1) / known.sum(1)

    return estimate(mean, table.shape[1])


def difference(first: Values, second: Values) -> Estimate:
    """The mean of `first - second`, paired by seed and prompt, each (S, P); not measured where either has no seed."""
    if not len(first) or not len(second):
        return NOT_MEASURED
    return mean_of(np.asarray(first, dtype=float) - np.asarray(second, dtype=float))


def over(values: Values) -> str:
    """What an interval over these values, (S, P), is over."""
    seeds, prompts = np.shape(values)
    return f"{prompts} prompts, {seeds} seed{'s' if seeds > 1 else ''}"


def ratio_of(first: Values, second: Values) -> Estimate:
    """The mean of `first` over the mean of `second`, each (S, P), with the same prompts resampled for both."""
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not one.size or not other.size:
        return NOT_MEASURED
    return estimate(lambda weights: (one @ weights) / (other @ weights), one.shape[1])


def share_of(hits: int, of: int) -> Estimate:
    """A share that was counted over independent cases."""
    return Estimate(hits / of, *share_interval(hits / of, of)) if of else NOT_MEASURED


class Curve(NamedTuple):
    """What the policies of one method reach: S seeds, J points, P prompts."""

    kl: np.ndarray  # (S, J, P) nats an answer from the start
    reward: np.ndarray  # (S, J, P)


def gain_at_equal_kl(first: Curve, second: Curve, start: np.ndarray) -> Estimate:
    """How much higher the reward of `first` is than that of `second` at the same KL, in the reward's unit.

    Each method's points, in the order of their mean KL, are joined by straight lines from the start on, which has KL 0
    and the rewards `start` (S, P). The figure is the mean difference of the two lines' heights from KL 0 to where the
    first of them ends.
    """

    def gain(weights: np.ndarray) -> np.ndarray:
        share = weights / weights.sum()
        lines = [[_line(curve, s, start, share) for curve in (first, second)] for s in range(len(start))]
        return np.array([_gain(*pair) for pair in lines])

    return estimate(gain, start.shape[1], resamples=400)


def reward_at(curve: Curve, start: np.ndarray, kl: float) -> Estimate:
    """The height of a method's line, as `gain_at_equal_kl` has it, at one KL; not measured where it ends before."""

    def height(weights: np.ndarray) -> np.ndarray:
        share = weights / weights.sum()
        lines = [_line(curve, s, start, share) for s in range(len(start))]
        return np.array([np.interp(kl, *line) if kl <= line[0][-1] else math.nan for line in lines])

    return estimate(height, start.shape[1], resamples=400)


def _line(curve: Curve, seed: int, start: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kl, reward = np.maximum(curve.kl[seed] @ share, 0.0), curve.reward[seed] @ share
    order = np.argsort(kl, kind="stable")
    return np.r_[0.0, kl[order]], np.r_[start[seed] @ share, reward[order]]


def _gain(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    end = min(first[0][-1], second[0][-1])
    if end <= 0:
        return math.nan
    places = np.unique(np.clip(np.r_[first[0], second[0], end], 0, end))
    heights = np.interp(places, *first) - np.interp(places, *second)
    # Straight between these places, so that the trapezoids are exact.
    return float((np.diff(places) * (heights[1:] + heights[:-1]) / 2).sum() / end)
