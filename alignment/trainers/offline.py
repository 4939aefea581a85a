"""What the trainers on given answers share: policy, data and reference from one configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_model as load_model_weights
from safetensors.torch import save_model
from transformers import TrainerCallback, set_seed

from alignment.config import RunConfig
from alignment.config_check import check_values
from alignment.models.adapters import is_adapted
from alignment.models.layout_check import choose_layout
from alignment.models.loading import load_model
from alignment.models.logps import attach
from alignment.models.reference import AdapterOff, MovingCopy, Reference, build_reference
from alignment.trainers.base import AlignmentTrainer
from alignment.trainers.inputs import Source, TrainingData, load_policy

REFERENCE = "reference.safetensors"  # in a checkpoint, where the reference moves


class OfflineTrainer(AlignmentTrainer):
    """A trainer on answers that are there already.

    Args:
        model: a built-in's name, folder, hub id or GGUF file; or a loaded model, then with `tokenizer`; None takes
            config.model.
        config: settings.
        load: from (train, eval, tokenizer, config) to units, as in trainers/inputs.py.
        train, eval: a path, Examples, or a list of the view's records; None takes config.data.
        folder: where metrics and checkpoints go; None takes config.output_dir.
        needs_reference: False where the loss reads none: then there is no second set of weights, unless asked for.
    """

    def __init__(
        self,
        model: Any,
        config: RunConfig,
        *,
        load: Callable[..., TrainingData],
        train: Source = None,
        eval: Source = None,
        tokenizer: Any = None,
        folder: str | Path | None = None,
        callbacks: Sequence[Any] = (),
        needs_reference: bool = True,
    ) -> None:
        check_values(config)
        set_seed(config.seed)  # a fresh adapter is random
        policy, tokenizer = load_policy(model, tokenizer, config)
        self.data = load(train, eval, tokenizer, config)
        run_folder = Path(folder or config.output_dir or f"outputs/{config.method}")
        run_folder.mkdir(parents=True, exist_ok=True)
        super().__init__(policy, tokenizer, config, run_folder, self.data.train, self.data.evaluation, callbacks)
        other = None
        if config.reference.path:
            other = attach(load_model(replace(config.model, path=config.reference.path))).to(self.args.device)
            layout, note = choose_layout(other, self.layout)  # both score the same batches
            if layout != self.layout:
                self.layout, self.layout_note = layout, note
        wanted = needs_reference or is_adapted(policy) or other is not None or config.reference.kind == "frozen_copy"
        self.reference: Reference | None = build_reference(policy, config.reference, other) if wanted else None
        if isinstance(self.reference, MovingCopy):
            self.add_callback(_MoveReference(self.reference, policy, config.reference.update_steps or 1))

    def save_method_state(self, folder: Path) -> None:
        if isinstance(self.reference, MovingCopy) and self.is_world_process_zero():
            save_model(self.reference.model, str(folder / REFERENCE))

    def load_method_state(self, folder: Path) -> None:
        if isinstance(self.reference, MovingCopy):
            load_model_weights(self.reference.model, str(folder / REFERENCE))

    @property
    def start(self) -> Reference | None:
        """The policy as it began, where it is still at hand: what KL and fluency are measured against."""
        if isinstance(self.reference, MovingCopy):
            policy = self.accelerator.unwrap_model(self.model)
            return AdapterOff(policy) if is_adapted(policy) else None
        return self.reference


class _MoveReference(TrainerCallback):
    """TR-DPO: the reference follows the policy every `steps` optimizer steps."""

    def __init__(self, reference: MovingCopy, policy: Any, steps: int) -> None:
        self.reference, self.policy, self.steps = reference, policy, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0:
            self.reference.follow(self.policy)
