"""How far verdicts agree with people, and what else they depend on: pure functions on arrays.

A verdict is P(first ≻ second). Only its side counts here: 1 first, 0.5 a tie, 0 second, NaN none (`sides`). `groups`
names what the items of one prompt have in common: they are not independent, so intervals resample whole groups.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from alignment.evaluation.metrics.logistic import RIDGE, fit
from alignment.evaluation.statistics import clustered_interval, share_interval


class Estimate(NamedTuple):
    """A number, its 95 % interval (NaN where there is none), and over how many items it was taken."""

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


def sides(p_first: Sequence[float] | np.ndarray) -> np.ndarray:
    """1 where P(first ≻ second) is above one half, 0 below, 0.5 at it; NaN stays. Same shape."""
    return (np.sign(np.asarray(p_first, dtype=np.float64) - 0.5) + 1.0) / 2.0


def share(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of `values` in [0, 1], shape (n,), NaN left out, with an interval over resampled groups.

    At 0 and 1 nothing is left to resample: there it is Wilson's interval over the number of groups.
    """
    known = ~np.isnan(values)
    values, groups = values[known], groups[known]
    n = len(values)
    if n == 0:
        return Estimate(math.nan)
    value = float(values.mean())
    if value in (0.0, 1.0):
        return Estimate(value, *share_interval(value, len(np.unique(groups))), n)
    rows = np.stack([values, np.ones(n)], axis=1)
    return Estimate(value, *clustered_interval(rows, groups, lambda sums: sums[..., 0] / sums[..., 1], seed), n)


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where two raters name the same side, 0 where opposite ones, 0.5 where one of them alone sees a tie; (n,)."""
    return 1.0 - np.abs(first - second)


def agreement_without_ties(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`agreement` where both raters name a side, NaN elsewhere; (n,)."""
    decided = (first != 0.5) & (second != 0.5)
    return np.where(decided, agreement(first, second), np.nan)


def cohens_kappa(first: np.ndarray, second: np.ndarray, groups: np.ndarray, seed: int = 0) -> Estimate:
    """(p_o - p_e) / (1 - p_e) over the three sides: agreement beyond what two raters with these habits have by chance.

    p_o is the share of items on which both name the same side (a tie is a side), p_e the sum over the sides of the
    product of both raters' shares. Not defined (NaN) where both raters name one side only.
    """
    known = ~np.isnan(first) & ~np.isnan(second)
    first, second, groups = first[known], second[known], groups[known]
    cells = np.eye(9)[(6 * first + 2 * second).astype(int)]  # 3 · side of the first + side of the second, in 0 to 8
    if len(cells) == 0:
        return Estimate(math.nan)
    value = float(_kappa(cells.sum(axis=0)))
    return Estimate(value, *clustered_interval(cells, groups, _kappa, seed), len(cells))


def _kappa(cells: np.ndarray) -> np.ndarray:
    """Kappa of flattened 3 x 3 tables of counts, shape (…, 9) -> (…)."""
    table = cells.reshape(*cells.shape[:-1], 3, 3) / cells.sum(axis=-1)[..., None, None]
    observed = np.trace(table, axis1=-2, axis2=-1)
    expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1.0 - 1e-12, (observed - expected) / (1.0 - expected), np.nan)


def between_annotators(votes: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean agreement of two annotators of an item, ties as a half; NaN where an item has one vote. (n,)."""
    found = []
    for given in votes:
        seen = sides(given)
        found.append(np.mean([1.0 - abs(a - b) for a, b in combinations(seen, 2)]) if len(seen) > 1 else math.nan)
    return np.asarray(found, dtype=np.float64)


def with_one_annotator(verdicts: np.ndarray, votes: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean agreement of a verdict with each single annotator, on the items that have several; NaN elsewhere. (n,).

    What `between_annotators` is to be held against: a mean of votes is easier to agree with than one vote.
    """
    return np.asarray(
        [
            float(np.mean(agreement(sides(given), np.full(len(given), side)))) if len(given) > 1 else math.nan
            for side, given in zip(verdicts, votes, strict=True)
        ]
    )


def logistic(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> list[Estimate]:
    """Logistic regression of y in [0, 1], shape (n,), on the columns of x, shape (n, k): one coefficient a column.

    With a small ridge penalty (RIDGE / 2 · |b|²). Intervals are ±1.96 standard errors that allow for items of one group
    being alike (the sandwich estimator with group sums).
    """
    n, k = x.shape
    if n == 0:
        return [Estimate(math.nan)] * k
    b = fit(x, y, np.ones((1, n)))[0]
    p = expit(x @ b)
    inverse = np.linalg.inv((x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(k))
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.zeros((codes.max() + 1, k))
    np.add.at(sums, codes, x * (p - y)[:, None])
    errors = np.sqrt(np.diag(inverse @ (sums.T @ sums) @ inverse))
    return [Estimate(float(v), float(v - 1.96 * e), float(v + 1.96 * e), n) for v, e in zip(b, errors, strict=True)]


def cycles(verdicts: Mapping[tuple[int, int], float]) -> tuple[int, int]:
    """(triples that go round in a circle, triples) of one prompt's answers.

    `verdicts` maps (i, j), each two answers once, to the side: 1 i wins, 0 j wins, 0.5 tie. A triple counts where all
    three of its verdicts are known; a circle is a ≻ b ≻ c ≻ a, without a tie in it.
    """
    beats: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for (i, j), side in verdicts.items():
        if not math.isnan(side):
            beats[i][j], beats[j][i] = side, 1.0 - side
    found = triples = 0
    for a, b, c in combinations(sorted(beats), 3):
        if b in beats[a] and c in beats[b] and a in beats[c]:
            triples += 1
            found += beats[a][b] == beats[b][c] == beats[c][a] != 0.5
    return found, triples
