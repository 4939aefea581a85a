"""What a checkpoint notes besides Trainer's own state, so that the run that goes on leaves the same traces as one that
was never stopped: what the guards have seen, how far metrics.jsonl went, and an evaluation that was due and not made.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignment.trainers import checkpoints

FILE = "watched.json"  # in a checkpoint; those of older versions have none
METRICS = "metrics.jsonl"  # in the run folder


class NoStepLeft(Exception):
    """A resumed run ends before its first step."""


def write(trainer: Any, staged: Path) -> None:
    """Note it in the checkpoint that is being written; on the first process alone."""
    metrics = trainer.folder / METRICS
    # By early stopping, say; one that the guard ended may go on with another guard.
    ended = trainer.control.should_training_stop and not trainer.asked_to_stop and not trainer.divergence.stopped
    state = {
        "nonfinite": trainer.nonfinite.state(),
        "divergence": trainer.divergence.state(),
        "metrics_bytes": metrics.stat().st_size if metrics.is_file() else 0,
        "evaluated": trainer.evaluated_at == trainer.state.global_step,
        "ended": ended,
    }
    (staged / FILE).write_text(json.dumps(state))


def load(trainer: Any, checkpoint: Path) -> None:
    """Take it back, and cut off the rows of metrics.jsonl that came behind the checkpoint."""
    if not (checkpoint / FILE).is_file():
        return
    state = json.loads((checkpoint / FILE).read_text())
    trainer.nonfinite.load(state["nonfinite"])
    trainer.divergence.load(state["divergence"])
    step, every, size = checkpoints.step_of(checkpoint), trainer.config.training.eval_steps, state.get("metrics_bytes")
    metrics = trainer.folder / METRICS
    if trainer.is_world_process_zero() and size is not None and metrics.is_file() and metrics.stat().st_size > size:
        os.truncate(metrics, size)
    trainer.evaluation_missed = every is not None and step % every == 0 and not state.get("evaluated", True)
    if trainer.divergence.stopped or state.get("ended"):
        trainer.args.max_steps = step


class CatchUp(TrainerCallback):
    """The evaluation that was due at the checkpoint's step is made before the resumed run's first one."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        if not trainer.evaluation_missed:
            return
        trainer.evaluation_missed = False
        if trainer._determine_best_metric(metrics=trainer.evaluate(), trial=None):
            best = checkpoints.checkpoint_folder(trainer.folder, state.global_step)
            trainer.state.best_model_checkpoint = str(best)
        if control.should_training_stop:  # Trainer would take a step before it looks
            raise NoStepLeft


def finish(trainer: Any) -> None:
    """End a run that had no step left as Trainer ends one."""
    trainer.is_in_train = False
    if trainer.args.load_best_model_at_end and trainer.state.best_model_checkpoint:
        trainer._load_best_model()
    trainer.control = trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)


def keep_rows_until(file: Path, step: int) -> None:
    """Drop rows of steps that are about to be taken again, and a last one that a kill cut short."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    beside = file.with_suffix(".writing")
    beside.write_text("".join(kept))
    beside.replace(file)
