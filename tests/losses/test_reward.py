"""Bradley–Terry by hand."""

from __future__ import annotations

import pytest
import torch

from alignment.losses.reward import PairScores, bradley_terry
from tests.losses.rows import nls, sigma


def three_rows(p_chosen=(1.0, 1.0, 0.75)) -> PairScores:
    """Differences 2, -1, 0; margins 0.5, 0, 4."""
    return PairScores(
        chosen=torch.tensor([1.5, -2.0, 3.0], dtype=torch.float64, requires_grad=True),
        rejected=torch.tensor([-0.5, -1.0, 3.0], dtype=torch.float64, requires_grad=True),
        p_chosen=torch.tensor(p_chosen, dtype=torch.float64),
        margin=torch.tensor([0.5, 0.0, 4.0], dtype=torch.float64),
    )


def test_plain_labels_and_metrics() -> None:
    output = bradley_terry(three_rows((1.0, 1.0, 1.0)))
    assert output.values.tolist() == pytest.approx([nls(2), nls(-1), nls(0)], abs=1e-12)
    assert output.metrics["accuracy"].tolist() == [1.0, 0.0, 0.5]
    assert output.metrics["margin"].tolist() == [2.0, -1.0, 0.0]


def test_soft_labels_and_smoothing() -> None:
    # p = 0.75 smoothed by 0.1: 0.75 * 0.9 + 0.25 * 0.1 = 0.7; a plain label becomes 0.9.
    output = bradley_terry(three_rows(), label_smoothing=0.1)
    expected = [0.9 * nls(2) + 0.1 * nls(-2), 0.9 * nls(-1) + 0.1 * nls(1), nls(0)]
    assert output.values.tolist() == pytest.approx(expected, abs=1e-12)


def test_margin() -> None:
    # 2 - 0.2 * 0.5 = 1.9; -1; row 3: 0.75 nls(0 - 0.8) + 0.25 nls(-0 - 0.8), the margin counting for either side
    output = bradley_terry(three_rows(), margin_weight=0.2)
    assert output.values.tolist() == pytest.approx([nls(1.9), nls(-1), nls(-0.8)], abs=1e-12)


def test_centring_and_its_gradient() -> None:
    pairs = three_rows((1.0, 1.0, 1.0))
    output = bradley_terry(pairs, centring=0.01)
    expected = [nls(2) + 0.01 * 1.0, nls(-1) + 0.01 * 9.0, nls(0) + 0.01 * 36.0]
    assert output.values.tolist() == pytest.approx(expected, abs=1e-12)
    output.values.sum().backward()
    # d/d r_w = -sigma(-d) + 2 * 0.01 * (r_w + r_l)
    expected = [-sigma(-2) + 0.02 * 1.0, -sigma(1) - 0.02 * 3.0, -0.5 + 0.02 * 6.0]
    assert pairs.chosen.grad is not None
    assert pairs.chosen.grad.tolist() == pytest.approx(expected, abs=1e-12)
