"""The cut of a step into micro-batches: the same pieces as a plain cut that lays out every candidate anew."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.batching.groups import Group, Unit
from alignment.batching.microbatch import WASTE, cut_by_tokens, groups_of
from alignment.batching.rows import FirstFit, Tally

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=4)
groups = st.builds(
    lambda prompt, completions: Group((1,) * prompt, tuple((2,) * n for n in completions)), st.integers(1, 20), lengths
)
steps = st.lists(st.lists(groups, min_size=1, max_size=3), min_size=1, max_size=14)


def plain_rows(found: Sequence[Group], layout: str) -> list[list[int]]:
    """The lengths in each row, laid out anew."""
    if layout == "padded":
        return [[length] for group in found for length in group.padded_lengths]
    falling = sorted((group.shared_length for group in found), reverse=True)
    rows: list[list[int]] = []
    for length in falling:
        fit = next((row for row in rows if sum(row) + length <= falling[0]), None)
        if fit is None:
            rows.append([length])
        else:
            fit.append(length)
    return rows


def plain_cut(units: Sequence[Unit], budget: int, layout: str, enough: float) -> list[list[Unit]]:
    def encoded(found: Sequence[Group]) -> int:
        rows = plain_rows(found, layout)
        return len(rows) * max(map(sum, rows))

    def fits(found: Sequence[Group], without: Sequence[Group]) -> bool:
        tokens = encoded(found)
        real = sum(map(sum, plain_rows(found, layout)))
        return tokens <= budget and (encoded(without) < enough or tokens - real <= WASTE * tokens)

    pieces: list[list[Unit]] = []
    for unit in sorted(units, key=lambda unit: -unit.useful_tokens):
        if pieces and fits(groups_of([*pieces[-1], unit]), groups_of(pieces[-1])):
            pieces[-1].append(unit)
        else:
            pieces.append([unit])
    return pieces


@pytest.mark.parametrize("layout", ["shared", "padded"])
@given(step=steps, budget=st.integers(1, 2000), enough=st.one_of(st.just(float("inf")), st.integers(0, 800)))
@settings(max_examples=150, deadline=None)
def test_the_pieces_are_those_of_the_plain_cut(
    layout: str, step: list[list[Group]], budget: int, enough: float
) -> None:
    units = [Unit(str(i), tuple(linked)) for i, linked in enumerate(step)]
    expected = plain_cut(units, budget, layout, enough)
    found = cut_by_tokens(units, budget, layout, enough)
    assert [[unit.id for unit in piece] for piece in found] == [[unit.id for unit in piece] for piece in expected]


@pytest.mark.parametrize("layout", ["shared", "padded"])
@given(found=st.lists(groups, min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_running_tally_is_that_of_rows_laid_out_anew(layout: str, found: list[Group]) -> None:
    tally = Tally(layout)
    for number, group in enumerate(found, start=1):
        tally.add([group])
        rows = plain_rows(found[:number], layout)
        assert tally.encoded == len(rows) * max(map(sum, rows))
        assert tally.real == sum(map(sum, rows))


def test_enough_is_enough_when_reached() -> None:
    units = [Unit(str(n), (Group((1,) * (n - 5), ((2,) * 5,)),)) for n in (100, 70)]
    assert [len(cut_by_tokens(units, 1000, "shared", enough)) for enough in (100, 101)] == [2, 1]


def test_first_fit_by_hand() -> None:
    fit = FirstFit()
    for length in (5, 3, 4, 2):
        fit.add(length)
    # 5 alone; 4 came late and pushed 3 out of the second row; 3 and 2 share the third
    assert (fit.capacity, fit.placed, fit.room) == (5, [(5, 0), (4, 1), (3, 2), (2, 2)], [0, 1, 0])
    fit.add(7)  # longer than all: rows become longer, and everything is placed again: 7 | 5 2 | 4 3
    assert (fit.capacity, fit.placed, fit.room) == (7, [(7, 0), (5, 1), (4, 2), (3, 2), (2, 1)], [0, 0, 0])
