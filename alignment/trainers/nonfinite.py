"""Steps whose loss or gradient is NaN or infinite: skipped by all ranks alike, counted; too many in a row end the run.

A skipped step has no update: the gradient is dropped, so that weights and the optimiser's moments stay as they were,
while the schedule and the number of the step go on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.batching.groups import Unit
from alignment.errors import UserError
from alignment.trainers.map_units import gathered
from alignment.trainers.termination import agree

FILE = "nonfinite.json"  # in the run folder: the skipped steps, and the ids of their examples


class NonFinite:
    """Looks at each step's losses and gradient norm, once, at the step's end.

    Args:
        trainer: whose steps they are.
        limit: so many in a row may be skipped; the next one ends the run.
    """

    def __init__(self, trainer: Any, limit: int) -> None:
        self.trainer, self.limit = trainer, limit
        self.skipped = self.in_a_row = 0
        self.loss_unknown = False  # since the last row of metrics
        self.seen: list[tuple[Sequence[Unit], Tensor]] = []

    def add(self, units: Sequence[Unit], losses: Tensor) -> None:
        """Note a micro-batch's losses (len(units),) until the look."""
        self.seen.append((units, losses.detach()))

    def look(self, norm: Any) -> bool:
        """Whether the step is to be skipped, on all ranks alike; `norm` is its gradient's, None where it is not known.

        Raises:
            UserError: more than `limit` in a row. The steps before them are kept.
        """
        seen, self.seen = self.seen, []
        device = self.trainer.args.device
        losses = torch.cat([values for _, values in seen]) if seen else torch.zeros(1, device=device)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        gradient = torch.as_tensor(0.0 if norm is None else norm, device=device)
        # One look at the device a step, not one a micro-batch.
        of_loss, of_gradient = torch.stack([losses.isfinite().all(), gradient.isfinite().all()]).tolist()
        accelerator = self.trainer.accelerator
        if not agree(accelerator, not (of_loss and of_gradient)):
            self.in_a_row = 0
            return False
        loss_too = agree(accelerator, not of_loss)
        self.loss_unknown |= loss_too
        self._note("loss" if loss_too else "gradient", _ids(self.trainer, seen, loss_too))
        return True

    def _note(self, what: str, ids: list[str]) -> None:
        trainer, step = self.trainer, self.trainer.state.global_step + 1
        file = trainer.folder / FILE
        # DeepSpeed makes its update in the backward pass: there is nothing left to skip.
        stops = self.in_a_row >= self.limit or trainer.is_deepspeed_enabled
        if stops:
            trainer.keep_steps()  # with the counts of the steps so far
        self.in_a_row += 1
        self.skipped += 1
        if trainer.is_world_process_zero():
            rows = json.loads(file.read_text()) if file.is_file() else []
            kept = [row for row in rows if row["step"] < step]  # a resumed run comes by again
            file.write_text(json.dumps([*kept, {"step": step, "what": what, "examples": ids}], indent=1))
        if not stops:
            if trainer.is_world_process_zero():
                print(
                    f"step {step}: the {what} is NaN or infinite; the step is skipped ({self.in_a_row} in a row, "
                    f"training.skip_nonfinite={self.limit}), its examples are in {file}"
                )
            return
        again = f", the {_ordinal(self.in_a_row)} step in a row" if self.in_a_row > 1 else ""
        raise UserError(
            f"the {what} is NaN or infinite at step {step}{again}; training stopped before the update. The "
            f"{len(ids)} offending example ids are in {file}\nMend: look at these examples, or lower "
            "training.learning_rate; the steps up to here are kept"
        )

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load(self, state: dict[str, Any]) -> None:
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def _ids(trainer: Any, seen: Sequence[tuple[Sequence[Unit], Tensor]], of_loss: bool) -> list[str]:
    """The examples whose loss it is; where only the gradient is at fault, all of the step. Of all ranks."""
    mine = [
        unit.id
        for units, values in seen
        for unit, finite in zip(units, values.isfinite().tolist(), strict=True)
        if not (of_loss and finite)
    ]
    return gathered(trainer, mine)


def _ordinal(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")
