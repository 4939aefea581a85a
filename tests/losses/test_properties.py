"""What holds for every loss on pairs."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.losses.modifiers import DIVERGENCES, diverged
from alignment.losses.record import PairLogps
from alignment.trainers.loss_settings import PAIRWISE, WITH_REFERENCE, build_loss
from tests.losses.rows import pairs, three_rows

CASES = {name: {"name": name} for name in PAIRWISE if name != "ipo"}
CASES |= {f"ipo {length}": {"name": "ipo", "length": length} for length in ("mean", "sum")}
LOSSES = {case: build_loss(chosen) for case, chosen in CASES.items()}
HELD = [case for case in CASES if CASES[case]["name"] in WITH_REFERENCE]
SMOOTHED = ("sigmoid", "robust", "r_dpo", "sigmoid_norm", "cpo")


@pytest.mark.parametrize("case", sorted({*HELD} - {"discopop"}))
def test_at_the_reference_a_step_opens_the_margin(case: str) -> None:
    rows = pairs([-10.0, -3.0], [-20.0, -7.0], [-10.0, -3.0], [-20.0, -7.0])
    LOSSES[case](rows).values.sum().backward()
    down = -(rows.chosen.grad - rows.rejected.grad)  # the change of u_w - u_l, down the gradient
    assert (down > 0).all()
    rejected_falls = -rows.rejected.grad < 0
    assert rejected_falls.all()
    chosen_rises = -rows.chosen.grad > 0
    assert (~chosen_rises).all() if case == "apo_down" else chosen_rises.all()  # it lowers both


def test_discopop_is_not_monotone() -> None:
    # d/dh at 0 with tau 0.05: -(1 - m)/2 - m + m' (1 - log 2), m = 1/2, m' = 1 / (4 tau) = 5: +0.784, so that it starts
    # by closing the margin; well off zero it opens it.
    slopes = []
    for h in (-0.5, 0.0, 0.5):
        rows = pairs([-10.0], [-20.0], [-10.0 - h / 0.05], [-20.0])
        LOSSES["discopop"](rows).values.sum().backward()
        slopes.append(rows.chosen.grad.item() / 0.05)
    assert slopes[0] < 0 and slopes[2] < 0
    assert slopes[1] == pytest.approx(-0.75 + 5 * (1 - math.log(2)))


@pytest.mark.parametrize("case", CASES)
def test_rows_stand_alone(case: str) -> None:
    rows, order = three_rows(p=0.8), torch.tensor([2, 0, 1])
    moved = PairLogps(*(getattr(rows, field.name)[order] for field in fields(rows)[:7]))
    one, other = LOSSES[case](rows), LOSSES[case](moved)
    assert torch.equal(one.values[order], other.values)
    for name, metric in one.metrics.items():
        assert torch.equal(metric[order], other.metrics[name])
        assert not metric.requires_grad and metric.shape == one.values.shape


@pytest.mark.parametrize("case", CASES)
def test_an_uncertain_label_is_the_mixture(case: str) -> None:
    loss, rows = LOSSES[case], three_rows()
    mixed = 0.7 * loss(rows).values + 0.3 * loss(rows.flipped()).values
    torch.testing.assert_close(loss(replace(rows, p_chosen=torch.full_like(rows.chosen, 0.7))).values, mixed)
    certain = loss(replace(rows, p_chosen=torch.zeros_like(rows.chosen))).values
    torch.testing.assert_close(certain, loss(rows.flipped()).values)


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothing_zero_is_the_plain_loss_and_smoothing_is_an_uncertain_label(name: str) -> None:
    # At 0 robust DPO is DPO.
    rows = three_rows()
    plain = PAIRWISE["sigmoid" if name == "robust" else name](rows).values
    torch.testing.assert_close(PAIRWISE[name](rows, label_smoothing=0.0).values, plain)
    if name != "robust":
        unsure = replace(rows, p_chosen=torch.full_like(rows.chosen, 0.9))
        torch.testing.assert_close(PAIRWISE[name](rows, label_smoothing=0.1).values, PAIRWISE[name](unsure).values)


logp = st.floats(-500, 500, width=32)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=40, deadline=None)
@given(st.tuples(logp, logp), st.sampled_from(DIVERGENCES), st.sampled_from([1.0, 0.8, 0.0]))
def test_finite_at_extremes(case: str, ratios: tuple[float, float], divergence: str, p: float) -> None:
    # Policies at -501 nats, references so that the log-ratios are the drawn ones; float32, as in training.
    u_w, u_l = ratios
    rows = pairs([-501.0], [-501.0], [-501.0 - u_w], [-501.0 - u_l], p, dtype=torch.float32)
    output = LOSSES[case](diverged(rows, divergence))
    output.values.sum().backward()
    assert output.values.isfinite().all()
    for tensor in (rows.chosen.grad, rows.rejected.grad, *output.metrics.values()):
        assert tensor is None or tensor.isfinite().all()


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.floats(-500, 0, width=32)] * 2))
def test_finite_at_extreme_log_probs(case: str, logps: tuple[float, float]) -> None:
    rows = pairs([logps[0]], [logps[1]], [-250.0], [-250.0], dtype=torch.float32)
    output = LOSSES[case](rows)
    output.values.sum().backward()
    assert output.values.isfinite().all()
    assert rows.chosen.grad.isfinite().all() and rows.rejected.grad.isfinite().all()


@pytest.mark.parametrize(
    "case", ["sigmoid", "r_dpo", "sigmoid_norm", "hinge", "exo", "discopop", "ipo mean", "ipo sum"]
)
def test_only_the_difference_counts(case: str) -> None:
    # A constant on both log-ratios (a prompt's normaliser) changes nothing; equal lengths for those that average.
    rows = pairs([-10.0, -5.0], [-20.0, -5.0], [-12.0, -5.0], [-15.0, -6.0], lengths=(3.0, 3.0))
    moved = replace(rows, ref_chosen=rows.ref_chosen - 1.7, ref_rejected=rows.ref_rejected - 1.7)
    torch.testing.assert_close(LOSSES[case](rows).values, LOSSES[case](moved).values)
