"""Cut one optimizer step into micro-batches by token budget. Changes memory and speed, never the update."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.batching.groups import Group, Unit
from alignment.batching.packing import encoded_tokens


def groups_of(units: Sequence[Unit]) -> list[Group]:
    return [group for unit in units for group in unit.groups]


def cut_by_tokens(units: Sequence[Unit], budget: int, layout: str = "shared") -> list[list[Unit]]:
    """Lists of units whose packed batch has at most `budget` tokens; a unit longer than that stands alone.

    Longest first, so that rows of one micro-batch are alike in length; ties keep their order.
    """
    pieces: list[list[Unit]] = []
    for unit in sorted(units, key=lambda unit: -unit.useful_tokens):
        if pieces and encoded_tokens(groups_of([*pieces[-1], unit]), layout) <= budget:
            pieces[-1].append(unit)
        else:
            pieces.append([unit])
    return pieces
