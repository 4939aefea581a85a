"""Win rates by hand, and against the other count of wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.evaluation.metrics.win_rates import WinRate, win_rate
from alignment.evaluation.win_lose import win_lose


def test_counts_by_hand() -> None:
    found = win_rate([1.0, 1.0, 0.5, 0.0, None, 0.75, math.nan], "dpo", "sft")
    assert (found.model, found.baseline) == ("dpo", "sft")
    assert (found.wins, found.losses, found.ties, found.no_verdict) == (3, 1, 1, 2)
    assert found.rate == pytest.approx(3.25 / 5)  # 0.75 (won in one order, tie in the other) counts as 0.75
    assert found.low < found.rate < found.high and not found.excludes_half


def test_without_ties_the_interval_is_wilsons() -> None:
    z = 1.959964
    for won, n in ((7, 10), (0, 5), (400, 800), (1, 1)):
        found, p = win_rate([1.0] * won + [0.0] * (n - won)), won / n
        centre, half = (p + z**2 / 2 / n), z * math.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
        ends = [(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)]
        assert [found.low, found.high] == pytest.approx(ends, abs=1e-6)
    assert win_rate([1.0] * 20).excludes_half and win_rate([0.0] * 20).excludes_half


def test_many_ties_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    decided = rng.integers(0, 2, 400).astype(float)
    tied = np.where(rng.random(400) < 0.5, 0.5, decided)
    sure, unsure = win_rate(list(tied)), win_rate(list(decided))
    # The variance halves with half the outcomes at the mean.
    assert (sure.high - sure.low) / (unsure.high - unsure.low) == pytest.approx(math.sqrt(0.5), rel=0.1)
    assert sure.high - sure.low == pytest.approx(2 * 1.96 * tied.std() / 20, rel=0.08)


def test_outcomes_of_one_prompt_are_resampled_together() -> None:
    outcomes = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0] * 5
    prompts = [f"{block}-{row // 4}" for block in range(5) for row in range(8)]
    clustered, alone = win_rate(outcomes, prompts=prompts), win_rate(outcomes)
    assert clustered.rate == alone.rate == 0.5
    assert clustered.high - clustered.low > 1.6 * (alone.high - alone.low)  # ten prompts, not forty: twice as wide
    with pytest.raises(ValueError, match="3 outcomes and 2 prompts"):
        win_rate([1.0] * 3, prompts=["a", "b"])


def test_nothing_known() -> None:
    none = win_rate([None, math.nan])
    assert math.isnan(none.rate) and math.isnan(none.low) and none.no_verdict == 2 and not none.excludes_half
    assert math.isnan(win_rate([]).rate)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        win_rate([-1.0])


def test_the_same_as_win_lose() -> None:
    signs = [1.0, 1.0, -1.0, 0.0, math.nan, -1.0, 1.0, 0.0]
    one = win_rate([(1.0 + sign) / 2.0 for sign in signs])
    other = win_lose(signs, [[{"role": "user", "content": str(row)}] for row in range(8)])
    assert one.rate == pytest.approx((1 + other.difference) / 2) and one.no_verdict == other.no_verdict
    assert one.wins == other.win * other.answers and one.losses == other.lose * other.answers


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, None]), min_size=1, max_size=12))
def test_seen_from_the_other_side(outcomes: list[float | None]) -> None:
    turned: WinRate = win_rate([None if value is None else 1 - value for value in outcomes])
    found = win_rate(outcomes)
    assert (found.wins, found.losses, found.ties) == (turned.losses, turned.wins, turned.ties)
    assert found.rate == pytest.approx(1 - turned.rate, nan_ok=True)
    assert found.low == pytest.approx(1 - turned.high, abs=0.05, nan_ok=True)
    assert math.isnan(found.low) or 0 <= found.low <= found.rate <= found.high <= 1


@pytest.mark.slow
def test_the_interval_covers() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = win_rate(list(rng.choice([0.0, 0.5, 1.0], 60, p=[0.3, 0.2, 0.5])), seed=seed)
        covered += found.low <= 0.6 <= found.high
    assert 0.9 <= covered / 200 <= 0.99
