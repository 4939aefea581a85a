"""DPO's sigmoid loss, with the arithmetic written out, and against TRL's definition of its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.losses.pairwise import PairLogps, sigmoid
from alignment.trainers.loss_settings import build_loss


def pairs(chosen, rejected, ref_chosen, ref_rejected, p=1.0) -> PairLogps:
    def tensor(value):
        return torch.tensor(value, dtype=torch.float64)

    n = len(chosen)
    return PairLogps(
        tensor(chosen).requires_grad_(),
        tensor(rejected).requires_grad_(),
        tensor(ref_chosen),
        tensor(ref_rejected),
        tensor([4.0] * n),
        tensor([2.0] * n),
        tensor([p] * n),
    )


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


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(UserError, match="unknown loss 'sigmiod': did you mean sigmoid"):
        build_loss({"name": "sigmiod"})
    with pytest.raises(UserError, match=r"loss.betta.*did you mean beta"):
        build_loss({"name": "sigmoid", "betta": 0.1})
    with pytest.raises(UserError, match="greater than 0"):
        build_loss({"name": "sigmoid", "beta": 0})
    with pytest.raises(UserError, match="label_smoothing"):
        build_loss({"name": "sigmoid", "label_smoothing": 0.5})
    with pytest.raises(UserError, match="a number is needed"):
        build_loss({"name": "sigmoid", "beta": "much"})
