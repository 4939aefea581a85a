"""Our TrainingConfig -> the TrainingArguments of transformers: the one place that knows both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.models.precision import settled_bf16


def training_arguments(config: RunConfig, folder: Path, steps: int) -> TrainingArguments:
    """Arguments for `steps` optimizer steps into `folder`.

    Raises:
        UserError: a tracker that is not installed, or a setting that transformers refuses.
    """
    training = config.training
    evaluating = training.eval_steps is not None
    save_steps = training.eval_steps if training.keep_best else training.save_steps
    _point_trackers_at(folder, training.report_to)
    arguments: dict[str, Any] = dict(
        output_dir=str(folder),
        max_steps=steps,
        gradient_accumulation_steps=1,  # a step is cut inside training_step
        learning_rate=training.learning_rate,
        optim=training.optimizer,
        weight_decay=training.weight_decay,
        lr_scheduler_type=training.scheduler,
        warmup_steps=round(training.warmup_ratio * steps),
        max_grad_norm=training.max_grad_norm,
        bf16=settled_bf16(training.bf16),
        use_cpu=not torch.cuda.is_available(),
        seed=config.seed,
        logging_steps=training.logging_steps,
        eval_strategy="steps" if evaluating else "no",
        eval_steps=training.eval_steps,
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 500,
        load_best_model_at_end=training.keep_best,
        restore_callback_states_from_checkpoint=True,  # early stopping's count
        metric_for_best_model=f"eval_{training.best_metric}" if training.keep_best or training.early_stopping else None,
        greater_is_better=training.best_metric != "loss",
        report_to=list(training.report_to) or "none",
        run_name=f"{config.recipe}-{folder.name}",
        project="alignment",  # trackio's
        remove_unused_columns=False,
        logging_nan_inf_filter=False,  # it hides NaN, and waits for the device at every step
        ddp_broadcast_buffers=False,  # several forwards before one backward: a broadcast would change their buffers
        ddp_find_unused_parameters=False,  # every pass uses every trained weight; the search costs time
        disable_tqdm=True,
        log_level="error",
    )
    try:
        return TrainingArguments(**arguments)
    except (ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"training settings: {' '.join(str(error).split())[:300]}") from error


def _point_trackers_at(folder: Path, trackers: list[str]) -> None:
    """Local files of a tracker belong into the run folder, unless the user's environment says otherwise."""
    if "wandb" in trackers:
        os.environ.setdefault("WANDB_DIR", str(folder))
        os.environ.setdefault("WANDB_PROJECT", "alignment")
    if "tensorboard" in trackers:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
    if "trackio" in trackers:
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
