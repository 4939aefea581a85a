"""Ranking models by their games against each other: Bradley–Terry strengths with intervals, and online Elo.

Outcomes are given as {(a, b): one value a prompt}, each pair of models once, in either order: 1 where a won on that
prompt, 0 where b did, 0.5 for a tie (or anything between, such as a mean over both orders), None or NaN for no verdict.
The prompts are the same ones, in the same order, for all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.sparse import csgraph

from alignment.errors import UserError
from alignment.evaluation.metrics.logistic import fit
from alignment.evaluation.statistics import resampled
from alignment.evaluation.text import visible
from alignment.feedback.peer_review import Game, elo

Outcomes = Mapping[tuple[str, str], Sequence[float | None]]

SCALE = 400.0 / math.log(10.0)  # Elo points a logit
MEAN = 1000.0
PRIOR = 0.1  # tied games that are added between every two models
NEARLY_NONE = 1e-6  # the ridge of the fit


@dataclass(frozen=True)
class Standing:
    """A model's place. `rating` is in Elo points with a mean of 1000 over the models: 400 more are odds of 10 to 1.

    `low` and `high` bound its 95 % bootstrap interval over prompts, `rank_low` (best) and `rank_high` that of its rank;
    1 is the best rank, and models of equal rating share it. NaN, and the rank itself, for fewer than two prompts.
    `bounded` is false for a model that won, or lost, all of its games: how far it is off is the prior's doing, and its
    interval says nothing of that.
    """

    model: str
    rating: float
    low: float
    high: float
    rank: int
    rank_low: int
    rank_high: int
    bounded: bool = True


def models_of(outcomes: Outcomes) -> list[str]:
    """The models in the order in which they are first named: the order of `pairwise_matrix`'s rows and columns."""
    return list(dict.fromkeys(model for pair in outcomes for model in pair))


def pairwise_matrix(outcomes: Outcomes) -> np.ndarray:
    """Win rate of the row's model against the column's, ties as a half, shape (K, K); rows as in `models_of`.

    NaN on the diagonal and where two models have no verdict. [i, j] and [j, i] add up to 1.

    Raises:
        UserError: as `bradley_terry`, but that models may be without games.
    """
    won = _games(outcomes).sum(axis=0)
    games = won + won.T
    with np.errstate(invalid="ignore"):
        return np.where(games > 0, won / games, np.nan)


def bradley_terry(outcomes: Outcomes, prior: float = PRIOR, seed: int = 0, resamples: int = 1_000) -> list[Standing]:
    """The models, best first, by Bradley–Terry strength: P(i ≻ j) = 1 / (1 + 10^((R_j - R_i) / 400)).

    The maximum of the likelihood of all games at once, a tie as half a win of each, so that no order of the games
    matters. Strengths put models on a line: where they beat each other in a circle, they come out equal, and
    `pairwise_matrix` is what to look at. Intervals resample whole prompts with all of their games.

    Args:
        prior: tied games added between every two models, so that a model that always won stays finite. 0.1 moves a
            win rate of 60 % over 100 prompts by 0.01 percentage points.
        seed, resamples: of the bootstrap.

    Raises:
        UserError: fewer than two models; a model against itself or a pair given twice; pairs over different numbers of
            prompts; a value outside [0, 1]; models that are not linked by games at all.
        ValueError: a prior that is not above 0.
    """
    if not prior > 0:
        raise ValueError(f"prior={prior}: a number above 0 is needed")
    models, games = models_of(outcomes), _games(outcomes)
    prompts, k, _ = games.shape
    won = games.sum(axis=0)
    _check_linked(models, won + won.T)
    ratings = _ratings(won[None], prior)[0]
    ranks = _ranks(ratings)
    if prompts < 2:
        return _sorted(models, won, ratings, np.full((2, k), math.nan), ranks, np.stack([ranks, ranks]))
    flat = games.reshape(prompts, k * k)

    found = resampled(prompts, lambda drawn: _ratings((drawn @ flat).reshape(-1, k, k), prior), seed, resamples)
    ends = np.percentile(found, [2.5, 97.5], axis=0)
    places = _ranks(found)
    best, worst = (
        np.percentile(places, 2.5, axis=0, method="lower"),
        np.percentile(places, 97.5, axis=0, method="higher"),
    )
    return _sorted(models, won, ratings, ends, ranks, np.stack([best, worst]))


def _sorted(
    models: list[str], won: np.ndarray, ratings: np.ndarray, ends: np.ndarray, ranks: np.ndarray, places: np.ndarray
) -> list[Standing]:
    bounded = (won.sum(axis=1) > 0) & (won.sum(axis=0) > 0)
    rows = [
        Standing(model, float(rating), float(low), float(high), int(rank), int(best), int(worst), bool(inside))
        for model, rating, low, high, rank, best, worst, inside in zip(
            models, ratings, *ends, ranks, *places, bounded, strict=True
        )
    ]
    return sorted(rows, key=lambda row: (row.rank, row.model))


def _games(outcomes: Outcomes) -> np.ndarray:
    """What each model won against each other on each prompt, shape (prompts, K, K); no verdict is no game, 0 and 0."""
    models = models_of(outcomes)
    if not models:
        raise UserError("a ranking needs the outcomes of two or more models")
    first_pair = next(iter(outcomes))
    prompts = len(outcomes[first_pair])
    games = np.zeros((prompts, len(models), len(models)))
    seen = set()
    for pair, values in outcomes.items():
        name = f"{visible(pair[0])} against {visible(pair[1])}"
        if pair[0] == pair[1] or frozenset(pair) in seen:
            raise UserError(f"{name}: give every two different models once, in one order")
        if len(values) != prompts:
            raise UserError(
                f"{name}: {len(values)} outcomes, and {visible(first_pair[0])} against {visible(first_pair[1])} has "
                f"{prompts}: all pairs need the same prompts (None where there is no verdict)"
            )
        seen.add(frozenset(pair))
        won = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        if ((won < 0) | (won > 1)).any():
            raise UserError(f"{name}: an outcome lies outside [0, 1] (1 won, 0.5 tie, 0 lost)")
        i, j = models.index(pair[0]), models.index(pair[1])
        games[:, i, j], games[:, j, i] = np.nan_to_num(won), np.nan_to_num(1.0 - won)
    return games


def _check_linked(models: list[str], games: np.ndarray) -> None:
    count, part = csgraph.connected_components(games > 0, directed=False)
    if count > 1:
        other = models[int(np.flatnonzero(part != part[0])[0])]
        raise UserError(
            f"{visible(models[0])} and {visible(other)} have no verdict between them, nor over other models: "
            f"they cannot be ranked together"
        )


def _ratings(won: np.ndarray, prior: float) -> np.ndarray:
    """Ratings by what each model won against each other, shape (b, K, K) -> (b, K).

    Bradley–Terry is a logistic regression without a constant: a row for i against j has 1 in column i and -1 in j, and
    i won it. Its ridge only fixes the sum of the strengths, which no game is about, at 0.
    """
    k = won.shape[-1]
    i, j = np.nonzero(~np.eye(k, dtype=bool))
    x = np.eye(k)[i] - np.eye(k)[j]
    return MEAN + SCALE * fit(x, np.ones(len(x)), won[:, i, j] + prior / 2, ridge=NEARLY_NONE)


def _ranks(ratings: np.ndarray) -> np.ndarray:
    """1 for the highest along the last axis; what is equal to a millionth of a point shares the better rank."""
    return stats.rankdata(-np.round(ratings, 6), method="min", axis=-1).astype(int)


def online_elo(
    matches: Iterable[Game], k: float = 16.0, initial: float = MEAN, orders: int = 1, seed: int = 0
) -> dict[str, float]:
    """Elo ratings after `matches` = (first, second, outcome for the first), updated game by game.

    `alignment.feedback.peer_review.elo`, averaged over `orders` orders: the one given, and random ones. The last games
    count most, so one order is one draw: with k = 32 two orders of the same games differ by tens of points. To rank
    fixed models take `bradley_terry`; Elo is what some published tables hold (PIT's rounds of improvement).

    Raises:
        ValueError: fewer than one order.
    """
    if orders < 1:
        raise ValueError(f"orders={orders}: at least 1 is needed")
    games, rng = list(matches), np.random.default_rng(seed)
    runs = [elo(games, k, initial)]
    for _ in range(orders - 1):
        runs.append(elo([games[place] for place in rng.permutation(len(games))], k, initial))
    return {model: float(np.mean([run[model] for run in runs])) for model in runs[0]}
