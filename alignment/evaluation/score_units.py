"""One number for each unit, from all processes: how before and after are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.losses.record import LossOutput
from alignment.models.reference import eval_mode
from alignment.trainers.termination import TERMINATION

Value = Callable[[nn.Module, Sequence[Unit], Batch], Tensor]


def score_units(trainer: Any, units: Sequence[Unit], value: Value) -> list[float]:
    """`value(model, units, batch)` (one number a unit) of every unit, in order, without gradient or dropout.

    Every process takes a share and gets all.
    """
    found: list[tuple[int, float]] = []
    place = {id(unit): number for number, unit in enumerate(units)}

    def compute(model: nn.Module, piece: Sequence[Unit], batch: Batch) -> LossOutput:
        values = value(model, piece, batch)
        numbers = values.tolist()
        found.extend(
            (place[id(unit)], number) for unit, number in zip(piece, numbers, strict=True) if id(unit) in place
        )
        return LossOutput(values)

    share = units[trainer.accelerator.process_index :: trainer.accelerator.num_processes]
    with eval_mode(trainer.model_wrapped):
        for piece in trainer.micro_batches(share):
            trainer.run(trainer.model_wrapped, piece or [trainer.filler], compute)
            TERMINATION.raise_if_agreed(trainer.accelerator)
    return [number for _, number in sorted(gathered(trainer, found))]


def gathered(trainer: Any, items: list) -> list:
    """The items of all processes."""
    if trainer.accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)
