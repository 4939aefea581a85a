"""Cut one optimizer step into micro-batches by token budget. Changes memory and speed, never the update."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.batching.groups import Group, Unit
from alignment.batching.rows import Tally


def groups_of(units: Sequence[Unit]) -> list[Group]:
    return [group for unit in units for group in unit.groups]


WASTE = 0.05  # padding that a micro-batch may hold, as a share of what it computes


def cut_by_tokens(
    units: Sequence[Unit], budget: int, layout: str = "shared", enough: float = float("inf")
) -> list[list[Unit]]:
    """Lists of units whose packed batch has at most `budget` tokens; a unit longer than that stands alone.

    Longest first, so that rows of one micro-batch are alike in length; ties keep their order. A micro-batch of `enough`
    tokens keeps the device busy, and takes a further unit only where that makes no more padding than `WASTE`.
    """
    pieces: list[list[Unit]] = []
    tally = Tally(layout)
    for unit in sorted(units, key=lambda unit: -unit.useful_tokens):
        full = tally.encoded >= enough
        tally.add(unit.groups)
        wasteful = full and tally.encoded - tally.real > WASTE * tally.encoded
        if not pieces or tally.encoded > budget or wasteful:
            pieces.append([])
            tally = Tally(layout)
            tally.add(unit.groups)
        pieces[-1].append(unit)
    return pieces
