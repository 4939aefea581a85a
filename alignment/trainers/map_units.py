"""Something about each unit, from all processes: how before and after are measured, and how samples are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.losses.record import LossOutput
from alignment.models.logps import causal_lm
from alignment.models.reference import eval_mode
from alignment.rollouts.sample import Answer, sample
from alignment.trainers.termination import TERMINATION

Value = Callable[[nn.Module, Sequence[Unit], Batch], Tensor]
Found = TypeVar("Found")


def score_units(trainer: Any, units: Sequence[Unit], value: Value) -> list[float]:
    """`value(model, units, batch)` (one number a unit) of every unit, in order, without gradient or dropout."""
    return map_units(trainer, units, lambda model, piece, batch: value(model, piece, batch).tolist())


def token_rows(trainer: Any, units: Sequence[Unit], value: Value) -> list[tuple[tuple[float, ...], ...]]:
    """`value(model, units, batch)` (one number a completion token) of every unit, as a row for each completion."""

    def rows(model: nn.Module, piece: Sequence[Unit], batch: Batch) -> list[tuple[tuple[float, ...], ...]]:
        split = value(model, piece, batch).cpu().split(batch.lengths.tolist())
        each = iter(tuple(row.tolist()) for row in split)
        return [tuple(next(each) for _ in range(unit.completions)) for unit in piece]

    return map_units(trainer, units, rows)


def map_units(
    trainer: Any, units: Sequence[Unit], value: Callable[[nn.Module, Sequence[Unit], Batch], list[Found]]
) -> list[Found]:
    """`value` (a list of one thing a unit) of every unit, in order. Every process takes a share and gets all."""
    found: list[tuple[int, Found]] = []
    units = list(units)  # those on disk are another object each time they are read
    place = {id(unit): number for number, unit in enumerate(units)}

    def compute(model: nn.Module, piece: Sequence[Unit], batch: Batch) -> LossOutput:
        things = value(model, piece, batch)
        found.extend((place[id(unit)], thing) for unit, thing in zip(piece, things, strict=True) if id(unit) in place)
        return LossOutput(torch.zeros(len(piece)))

    share = trainer.share(units)
    with eval_mode(trainer.model_wrapped):
        for piece in trainer.micro_batches(share):
            trainer.run(trainer.model_wrapped, piece or [trainer.filler], compute)
            TERMINATION.raise_if_agreed(trainer.accelerator)
    return [thing for _, thing in sorted(gathered(trainer, found), key=lambda item: item[0])]


def gathered(trainer: Any, items: list) -> list:
    """The items of all processes."""
    if trainer.accelerator.num_processes == 1:
        return items
    from accelerate.utils import gather_object

    return gather_object(items)


def sampled_answers(
    trainer: Any, model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], k: int = 1, **settings: Any
) -> list[list[Answer]]:
    """k answers of `model` to each prompt (token ids), in order. Every process samples a share and gets all.

    Args:
        settings: as of `sample`.
    """
    accelerator = trainer.accelerator
    mine = list(range(len(prompts)))[accelerator.process_index :: accelerator.num_processes]
    half = causal_lm(model).dtype != torch.float32  # then autocast would only cast to and fro
    with nullcontext() if half else accelerator.autocast():
        # A sharded model's forward passes wait for each other, so all ranks must make equally many: it is told them.
        asked = [prompts[i] for i in mine for _ in range(k)]
        found = sample(model, tokenizer, asked, accelerator=accelerator, **settings)
    TERMINATION.raise_if_agreed(accelerator)
    shares = gathered(trainer, [(i, found[at * k : (at + 1) * k]) for at, i in enumerate(mine)])
    return [answers for _, answers in sorted(shares, key=lambda item: item[0])]
