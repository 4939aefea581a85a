"""A figure with its interval, over the prompts that were asked and the seeds that were trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from alignment.evaluation.agreement import Estimate
from alignment.evaluation.frontier import area, line
from alignment.evaluation.statistics import resampled, share_interval

Statistic = Callable[[np.ndarray], np.ndarray]  # weights of the prompts (P,) -> one value a seed (S,)


NOT_MEASURED = Estimate(math.nan)


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
    means = resampled(prompts, lambda drawn: np.array([np.mean(statistic(each)) for each in drawn]), seed, resamples)
    known = np.isfinite(means)
    if 2 * known.sum() < len(means):
        return NOT_MEASURED
    means = means[known]
    if len(whole) == 1:
        low, high = np.percentile(means, [2.5, 97.5])
        return Estimate(value, float(low), float(high), prompts)
    return _with_seeds(value, float(means.var(ddof=1)), whole, prompts)


def _with_seeds(value: float, over_prompts: float, each: np.ndarray, prompts: int) -> Estimate:
    """The interval from the variance over prompts and the values of each seed."""
    over_seeds = float(each.var(ddof=1)) / len(each)
    variance = over_prompts + over_seeds
    if variance == 0:
        return exact(value)
    freedom = variance**2 / (over_seeds**2 / (len(each) - 1) + over_prompts**2 / (prompts - 1))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, prompts)


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
    return Estimate(hits / of, *share_interval(hits / of, of), of) if of else NOT_MEASURED


def over_halves(statistic: Callable[[np.ndarray], np.ndarray], prompts: int, resamples: int = 200) -> Estimate:
    """Like `estimate`, for what resampling with repeats would bias, such as how many n-grams of a set are distinct.

    The figure is of random halves of the prompts, drawn without repeats, whose spread is about that of the whole set
    in resamples with repeats.

    Args:
        statistic: numbers of the chosen prompts (P/2,) -> one value a seed (S,).
    """
    rng = np.random.default_rng(0)
    halves = [np.sort(rng.permutation(prompts)[: prompts // 2]) for _ in range(resamples)] if prompts > 3 else []
    if not halves:
        return NOT_MEASURED
    table = np.array([np.asarray(statistic(half), dtype=float) for half in halves])  # (resamples, S)
    value, over_prompts = float(table.mean()), float(table.mean(1).var(ddof=1))
    if table.shape[1] == 1:
        low, high = np.percentile(table[:, 0], [2.5, 97.5])
        return Estimate(value, float(low), float(high), prompts)
    return _with_seeds(value, over_prompts, table.mean(0), prompts)


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
    return line(np.r_[0.0, kl], np.r_[start[seed] @ share, reward], through="all")


def _gain(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    end = float(min(first[0][-1], second[0][-1]))
    return (area(first, 0.0, end) - area(second, 0.0, end)) / end if end > 0 else math.nan
