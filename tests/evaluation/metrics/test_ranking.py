"""Bradley–Terry by closed forms and on simulated games; Elo by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.evaluation.metrics.ranking import (
    MEAN,
    SCALE,
    Standing,
    _ratings,
    bradley_terry,
    models_of,
    online_elo,
    pairwise_matrix,
)
from alignment.tabular.solutions import fit_bradley_terry

Outcomes = dict[tuple[str, str], Sequence[float | None]]
TINY = 1e-9


def simulated(strengths: Sequence[float], prompts: int, seed: int = 0) -> Outcomes:
    """Games of models m0, m1, … with these strengths in Elo points."""
    rng = np.random.default_rng(seed)
    return {
        (f"m{i}", f"m{j}"): list((rng.random(prompts) < 1 / (1 + 10 ** ((b - a) / 400))).astype(float))
        for i, a in enumerate(strengths)
        for j, b in enumerate(strengths)
        if i < j
    }


def ratings(found: Sequence[Standing]) -> dict[str, float]:
    return {row.model: row.rating for row in found}


def test_the_matrix_by_hand() -> None:
    outcomes: Outcomes = {("b", "a"): [1, 0.5, None], ("a", "c"): [1, 1, 0], ("c", "b"): [None, math.nan, None]}
    assert models_of(outcomes) == ["b", "a", "c"]
    nan = math.nan
    expected = np.array([[nan, 3 / 4, nan], [1 / 4, nan, 2 / 3], [nan, 1 / 3, nan]])
    assert pairwise_matrix(outcomes) == pytest.approx(expected, nan_ok=True)


def test_two_models_have_the_log_odds_between_them() -> None:
    found = bradley_terry({("a", "b"): [1, 1, 0.5, 1, 0]}, prior=TINY)  # 3.5 to 1.5
    assert [row.model for row in found] == ["a", "b"]
    half = 200 * math.log10(3.5 / 1.5)
    assert [row.rating for row in found] == pytest.approx([1000 + half, 1000 - half], abs=1e-4)
    with_prior = bradley_terry({("a", "b"): [1, 1, 0.5, 1, 0]}, prior=1.0)  # 4 to 2
    assert with_prior[0].rating == pytest.approx(1000 + 200 * math.log10(2))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.5, 20), min_size=12, max_size=12))
def test_the_fit_is_that_of_the_tabular_games(numbers: list[float]) -> None:
    won = np.zeros((4, 4))
    won[~np.eye(4, dtype=bool)] = numbers
    games = won + won.T + np.eye(4)
    expected = fit_bradley_terry(won / games, games)  # by Newton's method of its own, without prior or ridge
    assert _ratings(won[None], prior=TINY)[0] == pytest.approx(MEAN + SCALE * expected, abs=1e-2)


def test_a_circle_is_of_equal_strength() -> None:
    circle: Outcomes = {("a", "b"): [1, 1, 0], ("b", "c"): [1, 1, 0], ("c", "a"): [1, 1, 0]}
    for row in bradley_terry(circle):
        assert row.rating == pytest.approx(1000, abs=1e-6) and row.rank == 1
        assert (row.rank_low, row.rank_high) == (1, 1)  # each prompt has the whole circle on it, or its reverse
    assert np.nanmax(pairwise_matrix(circle)) == pytest.approx(2 / 3)  # which the matrix shows


def test_recovers_the_strengths_of_simulated_games() -> None:
    true = [1150.0, 1040.0, 1000.0, 810.0]
    found = bradley_terry(simulated(true, 1500))
    assert [row.model for row in found] == ["m0", "m1", "m2", "m3"]
    assert [row.rating for row in found] == pytest.approx(true, abs=25)
    assert sum(row.rating for row in found) / 4 == pytest.approx(MEAN)
    assert all(row.low < row.rating < row.high and row.bounded for row in found)
    assert [row.rank for row in found] == [row.rank_low for row in found] == [row.rank_high for row in found]
    few = bradley_terry(simulated(true, 25))
    assert few[0].high - few[0].low > 4 * (found[0].high - found[0].low)
    assert any(row.rank_low < row.rank_high for row in few)


@pytest.mark.slow
def test_the_interval_covers() -> None:
    true = [1060.0, 1000.0, 940.0]
    inside = [
        row.low <= true[int(row.model[1])] <= row.high
        for seed in range(60)
        for row in bradley_terry(simulated(true, 80, seed), resamples=150)
    ]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_games_of_one_prompt_are_resampled_together() -> None:
    # The better half of the prompts is won against both: the two games of a prompt tell what one does.
    won = [1.0] * 30 + [0.0] * 30
    twice = bradley_terry({("a", "b"): won, ("a", "c"): won, ("b", "c"): [0.5] * 60})
    apart = bradley_terry({("a", "b"): won, ("a", "c"): won[::-1], ("b", "c"): [0.5] * 60})
    together, against = (next(row for row in found if row.model == "a") for found in (twice, apart))
    assert together.high - together.low > 40 and against.high - against.low < 1


def test_an_unbeaten_model_stays_finite_and_is_marked() -> None:
    found = bradley_terry({("a", "b"): [1] * 50, ("b", "c"): [1, 0] * 25, ("a", "c"): [1] * 50})
    assert found[0].model == "a" and math.isfinite(found[0].rating)
    assert [row.bounded for row in found] == [False, True, True]
    assert found[1].rank == found[2].rank == 2
    assert not any(row.bounded for row in bradley_terry({("a", "b"): [1, 1]}))
    alone = bradley_terry({("a", "b"): [1.0]})
    assert math.isnan(alone[0].low) and (alone[0].rank_low, alone[0].rank_high) == (1, 1)


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ({}, "two or more models"),
        ({("a", "a"): [1]}, "a against a: give every two different models once"),
        ({("a", "b"): [1], ("b", "a"): [0]}, "b against a: give every two different models once"),
        ({("a", "b"): [1], ("a", "c"): [0, 1]}, "a against c: 2 outcomes, and a against b has 1"),
        ({("a", "b"): [2]}, r"a against b: an outcome lies outside \[0, 1\]"),
        ({("a", "b"): [1], ("c", "d"): [1]}, "a and c have no verdict between them"),
        ({("a", "b"): [None], ("b", "\u202ec"): [1]}, "a and b have no verdict"),
        ({("a", "b"): [1], ("b", "\u202ec"): [None]}, r"a and <U\+202E>c have no verdict"),
    ],
)
def test_bad_outcomes(outcomes: Outcomes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bradley_terry(outcomes)


def test_a_prior_is_needed() -> None:
    with pytest.raises(ValueError, match="prior=0"):
        bradley_terry({("a", "b"): [1, 0]}, prior=0)


VALUE = st.sampled_from([0.0, 0.5, 1.0, None])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=8))
def test_who_is_named_first_does_not_matter(rows: list[tuple[float | None, ...]]) -> None:
    ab, bc, ca = ([1.0, *column] for column in zip(*rows, strict=True))
    turned = [None if value is None else 1 - value for value in ca]
    one = ratings(bradley_terry({("a", "b"): ab, ("b", "c"): bc, ("c", "a"): ca}, resamples=5))
    other = ratings(bradley_terry({("a", "c"): turned, ("b", "c"): bc, ("a", "b"): ab}, resamples=5))
    assert one == pytest.approx(other, abs=1e-4)
    # Where the likelihood is highest, each model wins as often as its rating says.
    expected = {pair: 1 / (1 + math.exp((one[pair[1]] - one[pair[0]]) / SCALE)) for pair in [("a", "b"), ("c", "a")]}
    games = {("a", "b"): [v for v in ab if v is not None], ("c", "a"): [v for v in ca if v is not None]}
    won = sum(games["a", "b"]) + len(games["c", "a"]) - sum(games["c", "a"]) + 0.1  # with two tied games of the prior
    counts = {pair: len(values) + 0.1 for pair, values in games.items()}
    assert won == pytest.approx(
        counts["a", "b"] * expected["a", "b"] + counts["c", "a"] * (1 - expected["c", "a"]), abs=1e-4
    )


def test_elo_by_hand() -> None:
    found = online_elo([("a", "b", 1.0), ("b", "a", 0.5), ("a", "c", math.nan)], k=32, initial=1000)
    # a: +16; then b expects 1 / (1 + 10^(32/400)) = 0.45402 and gets 0.5
    change = 32 * (0.5 - 1 / (1 + 10 ** (32 / 400)))
    assert found == pytest.approx({"a": 1016 - change, "b": 984 + change, "c": 1000})


def test_elo_over_several_orders() -> None:
    games = [("a", "b", 1.0)] * 20 + [("a", "b", 0.0)] * 20
    given_order, averaged = online_elo(games, k=32), online_elo(games, k=32, orders=50)
    assert given_order["a"] < 900  # the last games count most, and those it lost
    assert averaged["a"] == pytest.approx(1000, abs=30)
    assert averaged == online_elo(iter(games), k=32, orders=50)  # seeded
    with pytest.raises(ValueError, match="orders=0"):
        online_elo(games, orders=0)
