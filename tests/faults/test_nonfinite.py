"""A step whose loss or gradient is NaN changes nothing; it is counted, and too many in a row end the run."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment.errors import UserError
from alignment.losses.record import LossOutput
from alignment.trainers.checkpoints import whole_checkpoints
from tests.faults.runs import dpo, rows, same, weights
from tests.launching import launch


class _NaNGradient(torch.autograd.Function):
    """The identity, with NaN as its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * math.nan


def in_steps(*steps: int, gradient_alone: bool = False) -> Any:
    def change(number: int, found: LossOutput) -> LossOutput:
        if number not in steps:
            return found
        values = _NaNGradient.apply(found.values) if gradient_alone else found.values * math.nan
        return LossOutput(values, found.metrics)

    return change


def watched(trainer: Any) -> list[list[Tensor]]:
    """The trained weights before each step and behind the last, as it trains."""
    before: list[list[Tensor]] = []
    step = type(trainer).training_step

    def stepping(*given: Any) -> Tensor:
        before.append(weights(trainer))
        return step(trainer, *given)

    trainer.training_step = stepping
    try:
        trainer.train()
    finally:
        before.append(weights(trainer))
    return before


@pytest.mark.parametrize("gradient_alone", [False, True])
def test_a_step_is_skipped_and_the_run_goes_on(gradient_alone: bool, tmp_path: Path) -> None:
    # With momentum of the steps before, an optimiser that is merely given zeros would still move.
    trainer = dpo(tmp_path, in_steps(3, gradient_alone=gradient_alone), max_steps=5, weight_decay=0.1)
    before = watched(trainer)
    moved = [not same(one, other) for one, other in pairwise(before)]
    assert moved == [True, True, False, True, True]
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5]
    assert [row.get("skipped_steps") for row in found] == [None, None, 1, 1, 1]
    assert (found[2]["loss"] is None) is not gradient_alone and found[2]["grad_norm"] is None
    assert all(row["loss"] is not None for row in found if row["step"] != 3)
    assert found[3]["learning_rate"] == pytest.approx(1e-3 * (1 - 3 / 5))  # the schedule went on
    (noted,) = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (noted["step"], noted["what"]) == (3, "gradient" if gradient_alone else "loss")
    assert len(noted["examples"]) == 2


def test_too_many_in_a_row_stop_with_the_steps_before_kept(tmp_path: Path) -> None:
    trainer = dpo(tmp_path, in_steps(2, 4, 5, 6), skip_nonfinite=2, max_steps=8, save_steps=None)
    with pytest.raises(UserError, match="the loss is NaN or infinite at step 6, the third step in a row"):
        trainer.train()
    assert [row["step"] for row in json.loads((tmp_path / "nonfinite.json").read_text())] == [2, 4, 5, 6]
    (kept,) = whole_checkpoints(tmp_path)
    assert kept.name == "checkpoint-5"
    # A resumed run has the count, too: the next such step is one too many again.
    again = dpo(tmp_path, in_steps(1), skip_nonfinite=2, max_steps=8, save_steps=None)
    with pytest.raises(UserError, match="at step 6, the third step in a row"):
        again.resume(kept)
    assert [row["step"] for row in json.loads((tmp_path / "nonfinite.json").read_text())] == [2, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_rank_that_errs_has_all_skip(what: str, tmp_path: Path) -> None:
    done = launch([str(Path(__file__).with_name("nonfinite_on_ranks.py")), str(tmp_path), what], processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    for rank in range(2):
        moved = json.loads((tmp_path / f"rank_{rank}.json").read_text())
        assert moved == [True, True, False, True, True]
    found = rows(tmp_path)
    assert [row.get("skipped_steps") for row in found] == [None, None, 1, 1, 1]
    (noted,) = json.loads((tmp_path / "nonfinite.json").read_text())
    # One of the step's two pairs has the loss; whose the gradient is cannot be told.
    assert (noted["step"], noted["what"], len(noted["examples"])) == (3, what, 1 if what == "loss" else 2)
    assert done.stdout.count("the step is skipped") == 1
