from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.evaluation.statistics import mean_and_se, paired_difference, share_interval

NAN = float("nan")


def test_means_and_interval_of_a_hand_computed_case() -> None:
    # Differences 1, 2, 3, 4: mean 2.5. No mean of a resample lies outside [1, 4].
    found = paired_difference([0, 1, 2, 3], [1, 3, 5, 7])
    assert (found.before, found.after, found.difference, found.n, found.dropped) == (1.5, 4.0, 2.5, 4, 0)
    assert 1 <= found.low < 2.5 < found.high <= 4
    assert found.excludes_zero


def test_interval_of_many_normal_differences_is_the_textbook_one() -> None:
    differences = np.random.default_rng(0).normal(0.3, 1.0, 2000)
    found = paired_difference(np.zeros(2000), differences)
    half = 1.96 * differences.std(ddof=1) / math.sqrt(2000)
    assert found.low == pytest.approx(differences.mean() - half, abs=0.004)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.004)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(skewed: bool) -> None:
    rng, covered, trials = np.random.default_rng(1), 0, 300
    for trial in range(trials):
        differences = rng.exponential(1.0, 40) if skewed else rng.normal(1.0, 1.0, 40)
        found = paired_difference(np.zeros(40), differences, seed=trial, resamples=500)
        covered += found.low <= 1.0 <= found.high
    # 95 % of 300 is 285; the bootstrap falls a little short at n = 40, more so for the skewed ones.
    assert 0.90 <= covered / trials <= 0.985


def test_the_spread_between_prompts_cancels() -> None:
    rng = np.random.default_rng(2)
    prompts = rng.normal(0, 100, 50)
    found = paired_difference(prompts, prompts + 1 + rng.normal(0, 0.1, 50))
    assert found.high - found.low < 0.1


def test_one_seed_gives_one_interval_and_another_seed_nearly_the_same() -> None:
    after = np.random.default_rng(3).normal(0.5, 1, 64)
    first, again, other = (paired_difference(np.zeros(64), after, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert other.low == pytest.approx(first.low, abs=0.03)
    assert other.low != first.low


def test_pairs_without_a_verdict_are_dropped_on_both_sides_and_counted() -> None:
    found = paired_difference([1, NAN, 3, 4, 5], [2, 2, float("inf"), 6, 8])
    kept = paired_difference([1, 4, 5], [2, 6, 8])
    assert found.dropped == 2
    assert (found.before, found.after, found.difference, found.low, found.high, found.n) == (
        kept.before,
        kept.after,
        kept.difference,
        kept.low,
        kept.high,
        3,
    )


def test_too_few_pairs_have_no_interval() -> None:
    nothing, one = paired_difference([NAN], [1.0]), paired_difference([1.0], [3.0])
    assert nothing.n == 0
    assert math.isnan(nothing.difference)
    assert one.difference == 2.0
    assert math.isnan(one.low)
    assert not one.excludes_zero
    assert one.to_summary("s") == {"name": "s", "prompts": 1, "before": 1.0, "after": 3.0, "difference": 2.0}
    assert nothing.to_summary("s") == {"name": "s", "prompts": 0, "dropped": 1}


def test_equal_differences_give_that_value_as_interval() -> None:
    found = paired_difference([0.1, 0.3, 0.7], [0.3, 0.5, 0.9])  # 0.2 each, up to rounding
    assert found.low == found.high == pytest.approx(0.2)
    assert paired_difference([1, 2], [1, 2]).excludes_zero is False


def test_two_pairs_have_a_finite_interval() -> None:
    found = paired_difference([0, 0], [1, 3])
    assert (found.low, found.high) == (1.0, 3.0)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        paired_difference([1, 2], [1])


def test_the_summary_entry_holds_all_keys() -> None:
    entry = paired_difference([0, 1, 2, 3], [1, 3, 5, 7]).to_summary("plain_words")
    assert set(entry) == {"name", "prompts", "before", "after", "difference", "ci95"}
    assert entry["ci95"][0] <= entry["difference"] <= entry["ci95"][1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=30))
def test_the_interval_is_finite_ordered_and_within_the_differences(pairs: list[tuple[float, float]]) -> None:
    before, after = zip(*pairs, strict=True)
    found = paired_difference(before, after, resamples=200)
    differences = np.subtract(after, before)
    slack = 1e-9 * max(1.0, float(np.abs(differences).max()))
    assert differences.min() - slack <= found.low <= found.high <= differences.max() + slack


def test_mean_and_standard_error_by_hand() -> None:
    # 1, 2, 3, 4: variance 5/3 with n - 1, error sqrt(5/3/4).
    mean, se = mean_and_se([1, 2, 3, 4])
    assert mean == 2.5
    assert se == pytest.approx(math.sqrt(5 / 12))


def test_mean_of_few_values() -> None:
    assert all(math.isnan(value) for value in mean_and_se([]))
    assert mean_and_se([3.0]).mean == 3.0
    assert math.isnan(mean_and_se([3.0]).se)
    assert math.isnan(mean_and_se([3.0, NAN, 1.0]).mean)  # seen, not dropped


def test_share_interval_by_hand() -> None:
    # Wilson, 71 of 100, z = 1.96: (0.71 + 0.0192) / 1.0384 -+ 1.96 sqrt(0.71 * 0.29 / 100 + 0.0096 / 100) / 1.0384.
    low, high = share_interval(0.71, 100)
    assert (low, high) == (pytest.approx(0.6146, abs=2e-4), pytest.approx(0.7899, abs=2e-4))
    assert share_interval(1.0, 3)[1] == 1.0
