"""The losses without a reference, with the arithmetic written out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from alignment.losses.reference_free import cpo, orpo, sft, simpo
from tests.losses.rows import nls, pairs, three_rows

# Log-probs per token: chosen -2.5, -1.25, -2.25; rejected -10, -2.5, -1.5. Sums: -10, -5, -9; -20, -5, -3.


def odds(mean: float) -> float:
    return math.log(math.exp(mean) / (1 - math.exp(mean)))


BY_HAND = {
    # 2 * (7.5, 1.25, -0.75) - 0.5
    "simpo": (lambda rows: simpo(rows, 2.0, 0.5), [nls(14.5), nls(2.0), nls(-2.0)], [15.0, 2.5, -1.5]),
    "orpo": (
        lambda rows: orpo(rows, 0.5),
        [
            2.5 + 0.5 * nls(odds(-2.5) - odds(-10.0)),
            1.25 + 0.5 * nls(odds(-1.25) - odds(-2.5)),
            2.25 + 0.5 * nls(odds(-2.25) - odds(-1.5)),
        ],
        [3.75, 0.625, -0.375],
    ),
    # 0.1 * (10, 0, -6), and twice the NLL per token
    "cpo": (
        lambda rows: cpo(rows, 0.1, nll_weight=2.0),
        [nls(1.0) + 5.0, nls(0.0) + 2.5, nls(-0.6) + 4.5],
        [1.0, 0.0, -0.6],
    ),
    "cpo smoothed": (
        lambda rows: cpo(rows, 0.1, nll_weight=0.0, label_smoothing=0.2),
        [0.8 * nls(h) + 0.2 * nls(-h) for h in (1.0, 0.0, -0.6)],
        [1.0, 0.0, -0.6],
    ),
    "sft": (sft, [2.5, 1.25, 2.25], [7.5, 1.25, -0.75]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    loss, values, margins = BY_HAND[name]
    output = loss(three_rows())
    assert output.values.tolist() == pytest.approx(values, abs=1e-12)
    assert output.metrics["margin"].tolist() == pytest.approx(margins, abs=1e-12)
    assert output.metrics["accuracy"].tolist() == [float(margin > 0) for margin in margins]


@pytest.mark.parametrize("loss", [simpo, orpo, cpo, sft])
def test_no_reference_is_read(loss) -> None:
    rows = three_rows()
    other = replace(rows, ref_chosen=rows.ref_chosen + 3, ref_rejected=rows.ref_rejected - 7)
    torch.testing.assert_close(loss(rows).values, loss(other).values, atol=0, rtol=0)


@pytest.mark.parametrize("mean", [0.0, -1e-9, -1e-6, -30.0, -500.0])
def test_the_odds_are_finite_at_certainty_and_at_impossibility(mean: float) -> None:
    for chosen, rejected in ((mean, -1.0), (-1.0, mean), (mean, mean)):
        rows = pairs([4 * chosen], [2 * rejected], [0.0], [0.0], dtype=torch.float32)
        output = orpo(rows, 0.1)
        output.values.sum().backward()
        assert output.values.isfinite().all()
        assert rows.chosen.grad.isfinite().all() and rows.rejected.grad.isfinite().all()


def test_odds_near_certainty_lose_no_digits() -> None:
    # 1 - exp(-1e-5) in float32 would keep two digits; log odds(-1e-5) - log odds(-1) = 12.054...
    rows = pairs([-4e-5], [-2.0], [0.0], [0.0], dtype=torch.float32)
    gap = odds(-1e-5) - odds(-1.0)
    assert (orpo(rows, 1.0).values - 1e-5).item() == pytest.approx(nls(gap), rel=1e-4)
