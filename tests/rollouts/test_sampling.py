"""What a token is drawn from, by hand; how it is drawn; which random numbers it is drawn with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from alignment.errors import UserError
from alignment.rollouts.sampling import (
    SamplingSettings,
    check_unbiased,
    draw,
    mix,
    random_numbers,
    warp,
)

SHARES = torch.tensor([[0.1, 0.4, 0.2, 0.3]])


@pytest.mark.parametrize(
    "settings, expected",
    [
        (SamplingSettings(), [0.1, 0.4, 0.2, 0.3]),
        # p^2 / sum p^2, with sum p^2 = 0.01 + 0.16 + 0.04 + 0.09 = 0.3
        (SamplingSettings(temperature=0.5), [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        (SamplingSettings(temperature=0), [0, 1, 0, 0]),
        (SamplingSettings(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (SamplingSettings(top_k=9), [0.1, 0.4, 0.2, 0.3]),
        (SamplingSettings(top_p=0.5), [0, 4 / 7, 0, 3 / 7]),  # 0.4 alone is not half
        (SamplingSettings(top_p=0.8), [0, 4 / 9, 2 / 9, 3 / 9]),
        (SamplingSettings(top_p=1e-3), [0, 1, 0, 0]),
        # top-p looks at what top-k has left: 0.4 / 0.7 = 0.57
        (SamplingSettings(top_k=2, top_p=0.55), [0, 1, 0, 0]),
        # temperature first: 0.16 / 0.3 = 0.53
        (SamplingSettings(temperature=0.5, top_p=0.5), [0, 1, 0, 0]),
    ],
)
def test_distribution_by_hand(settings: SamplingSettings, expected: list[float]) -> None:
    found = warp(SHARES.log() + 3.0, settings).softmax(-1)  # logits are log-probs up to a constant
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32), atol=1e-6, rtol=0)


def test_a_draw_inverts_the_cumulative_distribution() -> None:
    # cumulative: 0.1, 0.5, 0.7, 1.0
    uniform = torch.tensor([0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 1 - 2**-53], dtype=torch.float64)
    tokens, logps = draw(SHARES.log().expand(8, 4), uniform, SamplingSettings())
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    torch.testing.assert_close(logps.exp(), SHARES[0, tokens])


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=8),
    uniform=st.floats(0, 1, exclude_max=True),
    top_k=st.integers(0, 4),
    top_p=st.floats(0.01, 1),
)
def test_what_is_drawn_has_probability(logits: list[float], uniform: float, top_k: int, top_p: float) -> None:
    settings = SamplingSettings(top_k=top_k, top_p=top_p)
    values = torch.tensor([logits])
    tokens, logps = draw(values, torch.tensor([uniform], dtype=torch.float64), settings)
    assert 0 <= int(tokens) < len(logits) and logps.isfinite()
    expected = warp(values, settings).double().log_softmax(-1)[0, tokens]
    torch.testing.assert_close(logps, expected.float(), atol=1e-5, rtol=1e-6)


def test_a_large_vocabulary_is_exact() -> None:
    """Against float64 over 50,000 tokens: few draws lie next to a border, and log-probs have no common error."""
    random = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(1, 50_000, generator=random)
    uniform = torch.rand(500, generator=random, dtype=torch.float64)
    exact = logits[0].double().log_softmax(0)
    expected = torch.searchsorted(exact.exp().cumsum(0), uniform, right=True)
    tokens, logps = draw(logits.expand(500, -1), uniform, SamplingSettings())
    assert (tokens == expected).float().mean() > 0.99 and (tokens - expected).abs().max() <= 1
    assert (logps - exact[tokens]).mean().abs() < 3e-7


def test_frequencies() -> None:
    uniform = torch.from_numpy(random_numbers([(1, 2)] * 4000, 1, seed=0))[:, 0]
    tokens, _ = draw(SHARES.log().expand(4000, 4), uniform, SamplingSettings())
    counts = tokens.bincount(minlength=4).numpy()
    assert chisquare(counts, [400, 1600, 800, 1200]).pvalue > 0.01
    assert chisquare(counts, [480, 1560, 780, 1180]).pvalue < 0.01  # two hundredths would be noticed


def test_a_mixture_by_hand() -> None:
    # sqrt(p q) of (0.1, 0.4, 0.2, 0.3) and (0.4, 0.1, 0.2, 0.3): (0.2, 0.2, 0.2, 0.3) / 0.9
    other = torch.tensor([[0.4, 0.1, 0.2, 0.3]])
    mixed = mix(SHARES.log() + 5, other.log() - 2, beta=0.5).softmax(-1)
    torch.testing.assert_close(mixed, torch.tensor([[2, 2, 2, 3]]) / 9)
    # p^0.75 q^0.25: 0.1 * 4^0.25, 0.4 * 4^-0.25, 0.2, 0.3
    mixed = mix(SHARES.log(), other.log(), beta=0.25).softmax(-1)
    expected = torch.tensor([[0.1 * 2**0.5, 0.4 / 2**0.5, 0.2, 0.3]])
    torch.testing.assert_close(mixed, expected / expected.sum())


def test_random_numbers_belong_to_a_row() -> None:
    a, b = (1, 2, 3), (4,)
    whole = random_numbers([a, b, a], 5, seed=1)
    assert whole.shape == (3, 5) and len(np.unique(whole)) == 15
    np.testing.assert_array_equal(random_numbers([b, a, a], 5, seed=1), whole[[1, 0, 2]])  # whatever stands around
    np.testing.assert_array_equal(random_numbers([a], 3, seed=1), whole[:1, :3])  # however long it is
    assert not np.isin(random_numbers([a], 5, seed=2), whole).any()
    assert random_numbers([], 5, seed=1).shape == (0, 5)
    assert kstest(random_numbers([(i,) for i in range(500)], 4, seed=0).ravel(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    "name, value", [("max_new_tokens", 0), ("temperature", -1), ("top_p", 0), ("top_p", 1.1), ("top_k", -1)]
)
def test_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"sampling.{name}={value}: it must be"):
        SamplingSettings(**{name: value})


def test_what_would_bias_an_estimator_is_refused() -> None:
    check_unbiased(SamplingSettings(temperature=0.7))
    for settings, mend in (
        (SamplingSettings(top_p=0.9), "sampling.top_p=1"),
        (SamplingSettings(top_k=50), "sampling.top_k=0"),
        (SamplingSettings(temperature=0), "sampling.temperature=1"),
    ):
        with pytest.raises(UserError, match=f"Mend: {mend}$"):
            check_unbiased(settings)
