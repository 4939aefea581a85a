"""What SIGTERM leaves out is made up for: an evaluation that was due, and all that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.errors import UserError
from alignment.losses.record import LossOutput
from alignment.trainers.checkpoints import find_resume, whole_checkpoints
from alignment.trainers.termination import TERMINATION
from tests.faults.runs import dpo, rows, same, weights


def at_call(call: int) -> Any:
    """SIGTERM while the loss is asked for the n-th time, in training or an evaluation."""

    def change(number: int, found: LossOutput) -> LossOutput:
        TERMINATION.asked |= number == call
        return found

    return change


@pytest.fixture(autouse=True)
def not_asked() -> Any:
    yield
    TERMINATION.asked = False


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows(folder)]


@pytest.mark.parametrize(
    ("settings", "call", "stopped_at", "end"),
    [
        # Steps 1 and 2 are calls 1 and 2, the evaluation behind step 2 is call 3, step 3 is call 4, …
        pytest.param(dict(learning_rate=1e-3), 2, 2, 6, id="the best one so far"),
        # Nothing gets better, so that the second evaluation, which is missed, ends the run.
        pytest.param(dict(learning_rate=1e-12, early_stopping=1), 5, 4, 4, id="the last one"),
    ],
)
def test_a_missed_evaluation(settings: dict[str, Any], call: int, stopped_at: int, end: int, tmp_path: Path) -> None:
    settings = {**settings, "eval_steps": 2, "keep_best": True, "best_metric": "loss"}
    whole = dpo(tmp_path / "whole", **settings)
    whole.train()
    assert whole.state.global_step == end

    run = dpo(tmp_path / "run", at_call(call), **settings)
    run.train()
    assert run.state.global_step == stopped_at
    assert not any("eval_loss" in row and row["step"] == stopped_at for row in rows(tmp_path / "run"))
    TERMINATION.asked = False
    again = dpo(tmp_path / "run", **settings)
    again.resume(find_resume(str(tmp_path / "run"))[1])
    assert again.state.global_step == end and same(weights(again), weights(whole))
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")
    names = [Path(trainer.state.best_model_checkpoint).name for trainer in (again, whole)]
    assert names[0] == names[1] and again.state.best_metric == whole.state.best_metric


def test_rows_behind_the_checkpoint_go(tmp_path: Path) -> None:
    """An evaluation at the end, at the step of the last checkpoint, is made again by a run that goes on from there."""
    run = dpo(tmp_path, max_steps=4, eval_steps=4)
    run.train()
    run.evaluate()
    once = timeless(tmp_path)
    again = dpo(tmp_path, max_steps=4, eval_steps=4)
    again.resume(whole_checkpoints(tmp_path)[-1])
    again.evaluate()
    assert timeless(tmp_path) == once


def test_a_best_metric_that_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training.best_metric=acuracy is not measured: did you mean accuracy"):
        dpo(tmp_path, eval_steps=1, keep_best=True, best_metric="acuracy").train()
