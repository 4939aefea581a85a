"""The losses with a reference, with the arithmetic written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.losses import pairwise
from alignment.losses.pairwise import sigmoid
from tests.losses.rows import nls, pairs, sigma, three_rows


def test_three_rows_by_hand() -> None:
    # h = beta * ((c - rc) - (r - rr)): 0.1 * ((-10+12) - (-20+15)) = 0.7; 0.1 * ((-5+5) - (-5+5)) = 0; -0.4
    rows = pairs([-10.0, -5.0, -9.0], [-20.0, -5.0, -3.0], [-12.0, -5.0, -7.0], [-15.0, -5.0, -5.0])
    output = sigmoid(rows, beta=0.1)
    expected = [math.log1p(math.exp(-0.7)), math.log(2), math.log1p(math.exp(0.4))]
    assert output.values.tolist() == pytest.approx(expected, abs=1e-12)
    assert output.metrics["margin"].tolist() == pytest.approx([0.7, 0.0, -0.4])
    assert output.metrics["accuracy"].tolist() == [1.0, 0.0, 0.0]  # strict: a tie is not right
    assert output.metrics["chosen_reward"].tolist() == pytest.approx([0.2, 0.0, -0.2])
    assert output.metrics["rejected_reward"].tolist() == pytest.approx([-0.5, 0.0, 0.2])
    assert output.metrics["chosen_logp"].tolist() == pytest.approx([-2.5, -1.25, -2.25])


def test_gradient_is_the_papers() -> None:
    # grad = -beta * sigma(r_l - r_w) * (grad log pi(y_w) - grad log pi(y_l))
    rows = pairs([-10.0], [-20.0], [-12.0], [-15.0])
    sigmoid(rows, beta=0.1).values.sum().backward()
    weight = 0.1 / (1 + math.exp(0.7))
    assert rows.chosen.grad.item() == pytest.approx(-weight)
    assert rows.rejected.grad.item() == pytest.approx(weight)


def test_label_smoothing_is_conservative_dpo() -> None:
    rows = pairs([-10.0], [-20.0], [-12.0], [-15.0])
    right, wrong = math.log1p(math.exp(-0.7)), math.log1p(math.exp(0.7))
    assert sigmoid(rows, 0.1, label_smoothing=0.2).values.item() == pytest.approx(0.8 * right + 0.2 * wrong)
    # Its minimum is where sigma(h) = 0.8, not at infinity.
    gradient = []
    for h in (math.log(4) - 0.1, math.log(4), math.log(4) + 0.1):
        at = pairs([h / 0.1], [0.0], [0.0], [0.0])
        sigmoid(at, 0.1, label_smoothing=0.2).values.sum().backward()
        gradient.append(at.chosen.grad.item())
    assert gradient[0] < 0 < gradient[2] and gradient[1] == pytest.approx(0, abs=1e-12)


def test_soft_labels() -> None:
    rows = pairs([-10.0], [-20.0], [-12.0], [-15.0], p=0.75)
    right, wrong = math.log1p(math.exp(-0.7)), math.log1p(math.exp(0.7))
    assert sigmoid(rows, 0.1).values.item() == pytest.approx(0.75 * right + 0.25 * wrong)


@given(st.lists(st.floats(-500, 0), min_size=4, max_size=4), st.floats(0.01, 2), st.floats(0, 0.49))
def test_swapping_the_pair_flips_the_margin_and_stays_finite(logps, beta, smoothing) -> None:
    c, r, rc, rr = ([value] for value in logps)
    one, other = pairs(c, r, rc, rr), pairs(r, c, rr, rc)
    first, second = sigmoid(one, beta, smoothing), sigmoid(other, beta, smoothing)
    assert first.metrics["margin"].item() == pytest.approx(-second.metrics["margin"].item())
    assert torch.isfinite(first.values).all() and (first.values >= 0).all()


# u_w = 2, 0, -2; u_l = -5, 0, 2; u_w - u_l = 7, 0, -4; lengths 4 and 2. Rewards are beta * u.
BY_HAND = {
    # h = 0.7, 0, -0.4; weights 0.9 / 0.8 and -0.1 / 0.8
    "robust": (
        lambda rows: pairwise.robust(rows, 0.1, label_smoothing=0.1),
        [1.125 * nls(h) - 0.125 * nls(-h) for h in (0.7, 0.0, -0.4)],
        [0.7, 0.0, -0.4],
    ),
    # max(0, 1 - h) at beta 0.2: h = 1.4, 0, -0.8
    "hinge": (lambda rows: pairwise.hinge(rows, 0.2), [0.0, 1.0, 1.8], [1.4, 0.0, -0.8]),
    # target 1 / (2 * 0.5) = 1: (7 - 1)^2, (0 - 1)^2, (-4 - 1)^2
    "ipo sum": (lambda rows: pairwise.ipo(rows, 0.5, length="sum"), [36.0, 1.0, 25.0], [3.5, 0.0, -2.0]),
    # 2/4 - -5/2 = 3; 0; -2/4 - 2/2 = -1.5: (3 - 1)^2, (0 - 1)^2, (-1.5 - 1)^2
    "ipo mean": (lambda rows: pairwise.ipo(rows, 0.5, length="mean"), [4.0, 1.0, 6.25], [1.5, 0.0, -0.75]),
    # h + 0.05 * (4 - 2) = 0.8, 0.1, -0.3
    "r_dpo": (
        lambda rows: pairwise.r_dpo(rows, 0.1, length_alpha=0.05),
        [nls(0.8), nls(0.1), nls(-0.3)],
        [0.7, 0.0, -0.4],
    ),
    # flipped: -h - 0.05 * (4 - 2) = -0.8, -0.1, 0.3
    "r_dpo smoothed": (
        lambda rows: pairwise.r_dpo(rows, 0.1, length_alpha=0.05, label_smoothing=0.2),
        [0.8 * nls(z) + 0.2 * nls(-z) for z in (0.8, 0.1, -0.3)],
        [0.7, 0.0, -0.4],
    ),
    # 2 * (3, 0, -1.5)
    "sigmoid_norm": (lambda rows: pairwise.sigmoid_norm(rows, 2.0), [nls(6.0), nls(0.0), nls(-3.0)], [6.0, 0.0, -3.0]),
    # KL of (sigma(h), sigma(-h)) from (0.9, 0.1)
    "exo": (
        lambda rows: pairwise.exo(rows, 0.1, label_smoothing=0.1),
        [sigma(h) * math.log(sigma(h) / 0.9) + sigma(-h) * math.log(sigma(-h) / 0.1) for h in (0.7, 0.0, -0.4)],
        [0.7, 0.0, -0.4],
    ),
    # r_w = 0.2, 0, -0.2; r_l = -0.5, 0, 0.2
    "nca": (
        lambda rows: pairwise.nca(rows, 0.1),
        [
            nls(0.2) + 0.5 * nls(-0.2) + 0.5 * nls(0.5),
            2 * math.log(2),
            nls(-0.2) + 0.5 * nls(0.2) + 0.5 * nls(-0.2),
        ],
        [0.7, 0.0, -0.4],
    ),
    "bco_pair": (
        lambda rows: pairwise.bco_pair(rows, 0.1),
        [nls(0.2) + nls(0.5), 2 * math.log(2), nls(-0.2) + nls(-0.2)],
        [0.7, 0.0, -0.4],
    ),
    "apo_zero": (
        lambda rows: pairwise.apo_zero(rows, 0.1),
        [1 - sigma(0.2) + sigma(-0.5), 1.0, 1 - sigma(-0.2) + sigma(0.2)],
        [0.7, 0.0, -0.4],
    ),
    "apo_down": (
        lambda rows: pairwise.apo_down(rows, 0.1),
        [sigma(0.2) + 1 - sigma(0.7), 1.0, sigma(-0.2) + 1 - sigma(-0.4)],
        [0.7, 0.0, -0.4],
    ),
    # 1 / (2 * 0.25) = 2: (2 - 2)^2 + (-5 + 2)^2; 4 + 4; (-2 - 2)^2 + (2 + 2)^2
    "sppo": (lambda rows: pairwise.sppo(rows, 0.25), [9.0, 8.0, 32.0], [1.75, 0.0, -1.0]),
    # h = 0.7, 0, -0.4; m = sigma(h / 0.5) = sigma(1.4), 1/2, sigma(-0.8)
    "discopop": (
        lambda rows: pairwise.discopop(rows, 0.1, tau=0.5),
        [
            (1 - sigma(1.4)) * nls(0.7) + sigma(1.4) * math.exp(-0.7),
            0.5 * math.log(2) + 0.5,
            (1 - sigma(-0.8)) * nls(-0.4) + sigma(-0.8) * math.exp(0.4),
        ],
        [0.7, 0.0, -0.4],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str) -> None:
    loss, values, margins = BY_HAND[name]
    output = loss(three_rows())
    assert output.values.tolist() == pytest.approx(values, abs=1e-12)
    assert output.metrics["margin"].tolist() == pytest.approx(margins, abs=1e-12)
    assert output.metrics["accuracy"].tolist() == [1.0, 0.0, 0.0]


def test_length_control_discounts_a_longer_chosen_answer() -> None:
    # At equal log-ratios a longer chosen answer has the smaller loss, and the smaller push.
    values, pushes = [], []
    for lengths in ((8.0, 2.0), (4.0, 4.0), (2.0, 8.0)):
        rows = pairs([-10.0], [-12.0], [-11.0], [-11.0], lengths=lengths)
        output = pairwise.r_dpo(rows, 0.1)
        output.values.sum().backward()
        values.append(output.values.item())
        pushes.append(-rows.chosen.grad.item())
    assert values[0] < values[1] < values[2] and 0 < pushes[0] < pushes[1] < pushes[2]


def test_robust_undoes_the_flips_it_is_told_of() -> None:
    # Over labels of which 20 % are flipped, its mean is the plain loss of the true labels.
    rows = three_rows()
    expected = 0.8 * pairwise.robust(rows, 0.1, 0.2).values + 0.2 * pairwise.robust(rows.flipped(), 0.1, 0.2).values
    torch.testing.assert_close(expected, sigmoid(rows, 0.1).values)


def test_soft_win_rates_give_sppo_the_papers_gradient() -> None:
    # (u - (P - 1/2) / beta)^2 for both answers, P = 0.75 and 0.25, at beta 0.25: targets 1 and -1.
    rows = three_rows(p=0.75)
    pairwise.sppo(rows, 0.25).values.sum().backward()
    assert rows.chosen.grad.tolist() == pytest.approx([2 * (u - 1) for u in (2.0, 0.0, -2.0)])
    assert rows.rejected.grad.tolist() == pytest.approx([2 * (u + 1) for u in (-5.0, 0.0, 2.0)])
