"""The five ordered terms of PIT's gap model by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.losses.gap import ORDERINGS, GapScores, gap
from tests.losses.rows import nls, sigma


def three_rows(p_chosen: tuple[float, ...] = (1.0, 1.0, 1.0)) -> GapScores:
    """In the wanted order; all four equal; in the opposite order, with unequal ties."""
    columns = {"wl": [2.0, 0.5, -3.0], "ww": [0.0, 0.5, -1.0], "ll": [-0.5, 0.5, 1.0], "lw": [-2.0, 0.5, 2.0]}
    tensors = {name: torch.tensor(column, dtype=torch.float64).requires_grad_() for name, column in columns.items()}
    return GapScores(**tensors, p_chosen=torch.tensor(p_chosen, dtype=torch.float64))


def test_three_cases() -> None:
    output = gap(three_rows())
    expected = [
        # wl-ww = 2, wl-ll = 2.5, wl-lw = 4, ww-lw = 2, ll-lw = 1.5
        nls(2) + nls(2.5) + nls(4) + nls(2) + nls(1.5),
        5 * nls(0),
        # wl-ww = -2, wl-ll = -4, wl-lw = -5, ww-lw = -3, ll-lw = -1
        nls(-2) + nls(-4) + nls(-5) + nls(-3) + nls(-1),
    ]
    assert output.values.tolist() == pytest.approx(expected, abs=1e-12)
    assert output.metrics["accuracy"].tolist() == [1.0, 0.5, 0.0]
    assert output.metrics["margin"].tolist() == [4.0, 0.0, -5.0]
    assert output.metrics["ordered"].tolist() == [1.0, 0.0, 0.0]
    assert output.metrics["unequal_ties"].tolist() == [0.5, 0.0, 2.0]
    assert not any(metric.requires_grad for metric in output.metrics.values())


def test_gradient_by_hand_and_no_term_ties_equal_answers() -> None:
    scores = three_rows()
    gap(scores).values.sum().backward()
    # d/dx of -log sigma(x) is -sigma(-x), of each term that a score stands in; first row.
    expected = {
        "wl": -sigma(-2) - sigma(-2.5) - sigma(-4),
        "ww": sigma(-2) - sigma(-2),  # below wl by 2 and above lw by 2
        "ll": sigma(-2.5) - sigma(-1.5),
        "lw": sigma(-4) + sigma(-2) + sigma(-1.5),
    }
    for name, value in expected.items():
        assert getattr(scores, name).grad[0].item() == pytest.approx(value, abs=1e-12), name


def test_an_uncertain_label_weighs_the_pair_and_its_flip() -> None:
    # Flipped, the first row has wl = -2, ww = -0.5, ll = 0, lw = 2: the five differences -1.5, -2, -4, -2.5, -2.
    plain = nls(2) + nls(2.5) + nls(4) + nls(2) + nls(1.5)
    flip = nls(-1.5) + nls(-2) + nls(-4) + nls(-2.5) + nls(-2)
    assert gap(three_rows((0.75, 1.0, 1.0))).values[0].item() == pytest.approx(0.75 * plain + 0.25 * flip, abs=1e-12)


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(6, dtype=torch.float64, generator=generator).requires_grad_() for _ in ORDERINGS]
    p_chosen = torch.tensor([1.0, 1.0, 0.8, 0.6, 1.0, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *scores: gap(GapScores(*scores, p_chosen)).values, rows)


score = st.floats(-50, 50)


@given(st.lists(st.tuples(score, score, score, score), min_size=1, max_size=4), score)
def test_an_offset_changes_nothing_and_the_flip_is_an_involution(rows: list[tuple[float, ...]], offset: float) -> None:
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
    one = GapScores(*columns, p_chosen=torch.ones(len(rows), dtype=torch.float64))
    moved = GapScores(*(column + offset for column in columns), p_chosen=one.p_chosen)
    torch.testing.assert_close(gap(one).values, gap(moved).values)
    back = one.flipped().flipped()
    assert all(torch.equal(getattr(one, name), getattr(back, name)) for name in ORDERINGS)
    assert (gap(one).values > 0).all()
