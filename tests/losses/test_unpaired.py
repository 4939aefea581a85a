"""KTO and BCO on single answers, with the arithmetic written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alignment.losses.record import UnpairedLogps
from alignment.losses.unpaired import bco, kto
from tests.losses.rows import nls, sigma


def four_rows(dtype=torch.float64) -> UnpairedLogps:
    """u = 3, -1, 2, -4; the first two are desirable."""
    return UnpairedLogps(
        policy=torch.tensor([-7.0, -6.0, -8.0, -9.0], dtype=dtype, requires_grad=True),
        reference=torch.tensor([-10.0, -5.0, -10.0, -5.0], dtype=dtype),
        length=torch.tensor([2.0, 3.0, 4.0, 3.0], dtype=dtype),
        desirable=torch.tensor([True, True, False, False]),
    )


def test_kto_by_hand() -> None:
    # beta * (u - kl) at kl = 1: 0.2, -0.2, 0.1, -0.5
    output = kto(four_rows(), torch.tensor(1.0), 0.1, desirable_weight=2.0, undesirable_weight=3.0)
    expected = [2 * (1 - sigma(0.2)), 2 * (1 - sigma(-0.2)), 3 * (1 - sigma(-0.1)), 3 * (1 - sigma(0.5))]
    assert output.values.tolist() == pytest.approx(expected, abs=1e-12)
    assert output.metrics["margin"].tolist() == pytest.approx([0.2, -0.2, -0.1, 0.5])
    assert output.metrics["accuracy"].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert output.metrics["reward"].tolist() == pytest.approx([0.3, -0.1, 0.2, -0.4])
    assert output.metrics["logp"].tolist() == pytest.approx([-3.5, -2.0, -2.0, -3.0])


def test_bco_by_hand() -> None:
    # beta * u - delta at delta = 0.05: 0.25, -0.15, 0.15, -0.45
    output = bco(four_rows(), torch.tensor(0.05, dtype=torch.float64), 0.1)
    assert output.values.tolist() == pytest.approx([nls(0.25), nls(-0.15), nls(-0.15), nls(0.45)], abs=1e-12)


def test_the_statistic_carries_no_gradient_and_ktos_is_not_negative() -> None:
    statistic = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for loss in (kto, bco):
        loss(four_rows(), statistic).values.sum().backward()
        assert statistic.grad is None
    torch.testing.assert_close(kto(four_rows(), torch.tensor(-5.0)).values, kto(four_rows(), torch.tensor(0.0)).values)


@pytest.mark.parametrize("loss", [kto, bco])
def test_desirable_rises_undesirable_falls_and_extremes_are_finite(loss) -> None:
    rows = four_rows()
    loss(rows, torch.tensor(0.0)).values.sum().backward()
    assert (rows.policy.grad[:2] < 0).all() and (rows.policy.grad[2:] > 0).all()
    for u in (-500.0, 500.0):
        rows = four_rows(torch.float32)
        rows = replace(rows, reference=(rows.policy - u).detach())
        values = loss(rows, torch.tensor(0.0), beta=1.0).values
        values.sum().backward()
        assert values.isfinite().all() and rows.policy.grad.isfinite().all()
