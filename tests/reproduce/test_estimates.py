"""Figures and their intervals: by hand, by simulation, and what must hold whatever the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.reproduce import estimates
from alignment.reproduce.estimates import Curve, difference, estimate, exact, gain_at_equal_kl, mean_of, ratio_of


def test_one_seed_is_the_bootstrap_over_prompts() -> None:
    values = np.random.default_rng(0).normal(size=(1, 400))
    found = mean_of(values)
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(found.value - half, abs=0.02)
    assert found.high == pytest.approx(found.value + half, abs=0.02)


def test_equal_seeds_add_nothing_and_different_ones_make_it_wide() -> None:
    prompts = np.random.default_rng(1).normal(size=200)
    alone, same = mean_of([prompts]), mean_of([prompts, prompts, prompts])
    assert same.high - same.low == pytest.approx(alone.high - alone.low, rel=0.15)
    apart = mean_of([prompts - 1, prompts, prompts + 1])
    # Three seeds, standard deviation 1: nearly the t interval of their means, 4.30 / sqrt(3).
    assert apart.high - apart.value == pytest.approx(4.30 / math.sqrt(3), rel=0.15)


def test_the_interval_covers_with_few_seeds() -> None:
    """Prompts and seeds of their own effects: the true mean is in the interval in about 95 % of cases, rather more."""
    rng, hits, cases = np.random.default_rng(2), 0, 150
    for _ in range(cases):
        table = 0.3 * rng.normal(size=(3, 1)) + rng.normal(size=(1, 40)) + rng.normal(size=(3, 40))

        def mean(weights: np.ndarray, table: np.ndarray = table) -> np.ndarray:
            return table @ weights / weights.sum()

        found = estimate(mean, 40, resamples=150)
        hits += found.low <= 0 <= found.high
    assert hits / cases >= 0.91


def test_no_verdict_is_left_out_and_nothing_is_not_measured() -> None:
    found = mean_of([[1.0, math.nan, 3.0]])
    assert found.value == 2.0
    assert math.isnan(mean_of(np.empty((0, 5))).value)
    assert math.isnan(difference(np.empty((0, 5)), [[1.0] * 5]).value)
    assert math.isnan(mean_of([[1.0]]).value)  # one prompt has no spread
    assert mean_of([[2.0, 2.0], [2.0, 2.0]]) == exact(2.0)


def test_ratio_takes_the_same_prompts_on_both_sides() -> None:
    words = np.random.default_rng(3).uniform(5, 100, size=(1, 50))
    found = ratio_of(2 * words, words)
    assert found.value == found.low == found.high == pytest.approx(2.0)


def curve(*points: tuple[float, float]) -> Curve:
    """One seed and two prompts that are the same."""
    kl, reward = (np.array([[[point[at]] * 2 for point in points]]) for at in (0, 1))
    return Curve(kl, reward)


def test_gain_at_equal_kl_by_hand() -> None:
    start = np.array([[1.0, 1.0]])
    # Lines from (0, 1): to (4, 5), and over (2, 2) to (6, 6). Up to KL 4 their heights differ by 0, 1, then 1, … at 2
    # by 1 and at 4 by 1: the area is 1 + 2.
    found = gain_at_equal_kl(curve((4.0, 5.0)), curve((6.0, 6.0), (2.0, 2.0)), start)
    assert found.value == pytest.approx(3 / 4)
    height = estimates.reward_at(curve((4.0, 5.0)), start, 3.0)
    assert height.value == pytest.approx(4.0)
    assert math.isnan(estimates.reward_at(curve((4.0, 5.0)), start, 4.5).value)
    assert math.isnan(gain_at_equal_kl(curve((0.0, 5.0)), curve((2.0, 2.0)), start).value)  # no common KL


@settings(max_examples=8, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(0.1, 9), st.floats(-5, 5)), min_size=2, max_size=5),
    more=st.floats(-3, 3),
)
def test_a_line_above_another_by_a_constant_gains_nothing_at_the_start(
    points: list[tuple[float, float]], more: float
) -> None:
    start = np.array([[0.0, 0.0]])
    one, other = curve(*points), curve(*((kl, reward + more) for kl, reward in points))
    found, back = gain_at_equal_kl(other, one, start), gain_at_equal_kl(one, other, start)
    assert found.value == pytest.approx(-back.value, abs=1e-9)
    # From the common start the distance rises to `more` by the first point, and stays.
    assert abs(found.value) <= abs(more) + 1e-9 and found.value * more >= -1e-9


def test_halves_are_of_one_size() -> None:
    sizes = []

    def statistic(chosen: np.ndarray) -> np.ndarray:
        sizes.append(len(set(chosen.tolist())))
        return np.array([float(chosen.mean())])

    found = estimates.over_halves(statistic, 10, resamples=50)
    assert set(sizes) == {5} and found.low < 4.5 < found.high
