"""Holm by hand; the paired test against counting by hand and a t-test."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from alignment.evaluation.metrics.multiple import holm, paired_p_value

NAN = math.nan


def test_holm_by_hand() -> None:
    # 3 · 0.01, 2 · 0.02 and, held up by it, 1 · 0.03
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.03, NAN, 0.01]) == pytest.approx([0.03, NAN, 0.02], nan_ok=True)
    assert holm([]).shape == (0,) and np.isnan(holm([NAN])).all()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.2])


def test_the_exact_p_value_by_counting() -> None:
    before, after = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([2.5, 2.0, 5.0, 3.5, 8.0])
    differences = after - before
    sums = np.array([np.dot(signs, differences) for signs in product((-1, 1), repeat=5)])
    counted = 2 * min((sums >= differences.sum()).mean(), (sums <= differences.sum()).mean())
    assert paired_p_value(before, after) == pytest.approx(counted)
    assert paired_p_value([0] * 5, [1] * 5) == 2 / 2**5  # five pairs never reach 0.05
    assert paired_p_value([0] * 6, [1] * 6) == 2 / 2**6


def test_the_random_p_value_is_near_the_t_test() -> None:
    before, noise = np.random.default_rng(2).normal(size=(2, 150))
    after = before + stats.zscore(noise, ddof=1) + 0.15  # t = 0.15 · √150 = 1.84
    expected = stats.ttest_rel(after, before).pvalue
    found = paired_p_value(before, after, seed=3)
    assert expected == pytest.approx(0.0682, abs=1e-4) and found == pytest.approx(expected, abs=0.01)
    assert paired_p_value(before, after, seed=3) == found  # seeded
    assert paired_p_value(before, before + 1, resamples=999) == 2 / 1000


def test_what_counts_as_a_pair() -> None:
    assert paired_p_value([0, NAN, 0, 0], [1, 5, math.inf, 1]) == 2 / 2**2
    assert paired_p_value([1, 2], [1, 2]) == 1.0  # no difference at all
    assert paired_p_value([0], [1]) == 1.0
    assert math.isnan(paired_p_value([], [])) and math.isnan(paired_p_value([NAN], [1.0]))
    with pytest.raises(ValueError, match="one length"):
        paired_p_value([1, 2], [1])


def test_false_alarms_are_as_rare_as_they_say() -> None:
    rng = np.random.default_rng(0)
    values = [paired_p_value(np.full(9, 0.5), rng.choice([0.0, 0.5, 1.0], 9)) for _ in range(200)]
    assert np.mean(np.array(values) <= 0.05) <= 0.075
