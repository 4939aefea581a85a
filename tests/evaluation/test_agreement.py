"""Agreement statistics against arithmetic by hand, and judges whose habits are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.evaluation.agreement import (
    agreement,
    agreement_without_ties,
    between_annotators,
    cohens_kappa,
    cycles,
    logistic,
    share,
    sides,
    with_one_annotator,
)
from alignment.evaluation.statistics import clustered_interval

SIDE = st.sampled_from([0.0, 0.5, 1.0])


def alone(n: int) -> np.ndarray:
    """Each item in a group of its own."""
    return np.arange(n)


def test_sides() -> None:
    assert sides([0.9, 0.5, 0.1, 0.5000001]).tolist() == [1.0, 0.5, 0.0, 1.0]
    assert math.isnan(sides([math.nan])[0])


def test_kappa_by_hand() -> None:
    # both first 20, first alone 5, second alone 10, both second 15: p_o = 35/50; p_e = .5 * .6 + .5 * .4 = .5
    a = np.array([1.0] * 25 + [0.0] * 25)
    b = np.array([1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15)
    found = cohens_kappa(a, b, alone(50))
    assert found.value == pytest.approx(0.4) and found.n == 50
    # The normal approximation: se = sqrt(p_o (1 - p_o) / n) / (1 - p_e) = 0.1296
    assert found.low == pytest.approx(0.4 - 1.96 * 0.1296, abs=0.03)
    assert found.high == pytest.approx(0.4 + 1.96 * 0.1296, abs=0.03)


def test_kappa_with_ties_by_hand() -> None:
    # p_o = 3/6 (places 0, 1, 4); shares a: 3/6 first, 2/6 tie, 1/6 second; b: 2/6, 2/6, 2/6
    a = np.array([1, 1, 1, 0.5, 0.5, 0])
    b = np.array([1, 1, 0, 0, 0.5, 0.5])
    assert cohens_kappa(a, b, alone(6)).value == pytest.approx((0.5 - 1 / 3) / (1 - 1 / 3))


def test_kappa_of_a_rater_with_one_answer_is_0_and_of_two_such_undefined() -> None:
    mixed, first = np.array([1.0, 0.0, 1.0, 0.5]), np.ones(4)
    assert cohens_kappa(mixed, first, alone(4)).value == pytest.approx(0.0)
    assert math.isnan(cohens_kappa(first, first, alone(4)).value)
    assert math.isnan(cohens_kappa(np.array([math.nan]), np.ones(1), alone(1)).value)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(SIDE, SIDE), min_size=3, max_size=12))
def test_kappa_is_symmetric_and_no_more_than_1(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    one, other = cohens_kappa(a, b, alone(len(a))), cohens_kappa(b, a, alone(len(a)))
    assert one.value == pytest.approx(other.value, nan_ok=True)
    assert math.isnan(one.value) or one.value <= 1 + 1e-12
    mirrored = cohens_kappa(1 - a, 1 - b, alone(len(a)))
    assert one.value == pytest.approx(mirrored.value, nan_ok=True)


def test_agreement_counts_a_tie_as_half() -> None:
    a, b = np.array([1, 1, 0.5, 0.5, 0]), np.array([1, 0, 1, 0.5, 0])
    assert agreement(a, b).tolist() == [1, 0, 0.5, 1, 1]
    without = agreement_without_ties(a, b)
    assert without[[0, 1, 4]].tolist() == [1, 0, 1] and np.isnan(without[[2, 3]]).all()
    assert np.isnan(agreement(np.array([math.nan]), np.array([1.0])))[0]


def test_annotators_by_hand() -> None:
    votes = [[1.0, 1.0, 0.0], [1.0], [1.0, 0.5]]  # pairs of three: agree, not, not
    assert between_annotators(votes) == pytest.approx([1 / 3, math.nan, 0.5], nan_ok=True)
    assert with_one_annotator(np.array([1.0, 1.0, 0.0]), votes) == pytest.approx([2 / 3, math.nan, 0.25], nan_ok=True)


def test_share_leaves_out_what_is_not_known_and_allows_for_groups() -> None:
    values = np.array([1.0, 0.0, math.nan, 1.0, 1.0])
    found = share(values, alone(5))
    assert (found.value, found.n) == (0.75, 4)
    certain = share(np.ones(10), alone(10))
    assert certain.high == pytest.approx(1.0) and certain.low == pytest.approx(0.7225, abs=1e-3)  # Wilson: 10 of 10
    assert math.isnan(share(np.array([math.nan]), alone(1)).value)
    # 40 items of which always 10 say the same: the interval is that of 4 items.
    repeated = np.repeat([1.0, 1.0, 0.0, 1.0], 10)
    clustered, naive = share(repeated, np.repeat(alone(4), 10)), share(repeated, alone(40))
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_clustered_interval_of_two_groups() -> None:
    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    # A resample is one group twice (a quarter each) or both: 0, 1/2 or 1.
    rows = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert clustered_interval(rows, np.array([0, 1]), mean) == (0.0, 1.0)
    assert all(math.isnan(bound) for bound in clustered_interval(rows, np.array([3, 3]), mean))
    many = np.random.default_rng(0).random((200, 1)).repeat(2, axis=1)
    many[:, 1] = 1
    assert clustered_interval(many, alone(200), mean, seed=1) == clustered_interval(many, alone(200), mean, seed=1)
    low, high = clustered_interval(many, alone(200), mean)
    assert low < many[:, 0].mean() < high and high - low == pytest.approx(2 * 1.96 * 0.289 / math.sqrt(200), rel=0.15)


def test_logistic_by_hand() -> None:
    # One binary column: odds 3 : 1 where it is 1 and 1 : 1 where it is 0, so the coefficient is log 3, the constant 0.
    x = np.array([[1.0, 1.0]] * 400 + [[0.0, 1.0]] * 400)
    y = np.array([1.0] * 300 + [0.0] * 100 + [1.0] * 200 + [0.0] * 200)
    slope, constant = logistic(x, y, alone(800))
    assert slope.value == pytest.approx(math.log(3), abs=2e-3) and constant.value == pytest.approx(0, abs=2e-3)
    error = math.sqrt(1 / 300 + 1 / 100 + 1 / 200 + 1 / 200)  # of a log odds ratio
    assert slope.high - slope.low == pytest.approx(2 * 1.96 * error, rel=0.01)
    doubled = logistic(np.r_[x, x], np.r_[y, y], np.r_[alone(800), alone(800)])[0]  # the same items twice tell no more
    assert doubled.high - doubled.low == pytest.approx(slope.high - slope.low, rel=0.01)
    separated = logistic(np.array([[1.0], [-1.0]] * 50), np.array([1.0, 0.0] * 50), alone(100))[0]
    assert 5 < separated.value < 20 and math.isfinite(separated.high)


def test_cycles_by_hand() -> None:
    assert cycles({(0, 1): 1, (1, 2): 1, (0, 2): 0}) == (1, 1)  # 0 > 1 > 2 > 0
    assert cycles({(0, 1): 0, (1, 2): 0, (0, 2): 1}) == (1, 1)  # the other way round
    assert cycles({(0, 1): 1, (1, 2): 1, (0, 2): 1}) == (0, 1)
    assert cycles({(0, 1): 0.5, (1, 2): 0.5, (0, 2): 0.5}) == (0, 1)
    assert cycles({(0, 1): 1, (1, 2): 1}) == (0, 0)
    assert cycles({(0, 1): 1, (1, 2): 1, (0, 2): math.nan}) == (0, 0)
    # Four answers, all but one verdict in a line: of four triples two hold the odd one, 3 > 0, as their circle.
    line = {(i, j): 1.0 for i in range(4) for j in range(i + 1, 4)} | {(0, 3): 0.0}
    assert cycles(line) == (2, 4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=3, max_size=6))
def test_scores_never_go_round_in_a_circle(scores: list[int]) -> None:
    verdicts = {
        (i, j): float(sides([0.5 + scores[i] - scores[j]])[0])
        for i in range(len(scores))
        for j in range(i + 1, len(scores))
    }
    assert cycles(verdicts) == (0, math.comb(len(scores), 3))
