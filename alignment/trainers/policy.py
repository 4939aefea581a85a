"""What the trainers of a policy share: the policy, its data and its reference from one configuration."""

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
from alignment.errors import UserError
from alignment.models.adapters import is_adapted
from alignment.models.layout_check import choose_layout
from alignment.models.loading import load_model
from alignment.models.logps import attach, causal_lm
from alignment.models.reference import AdapterOff, MovingCopy, Reference, build_reference
from alignment.trainers.base import AlignmentTrainer
from alignment.trainers.inputs import Source, TrainingData, load_policy

REFERENCE = "reference.safetensors"  # in a checkpoint, where the reference moves


class PolicyTrainer(AlignmentTrainer):
    """A trainer of a language model, on answers that are there already or are sampled on the way.

    A method says what it reads (`load`) and chooses its loss (`choose_loss`), and then `compute`s it.

    Args:
        model: a built-in's name, folder, hub id or GGUF file; or a loaded model, then with `tokenizer`; None takes
            config.model.
        config: settings; None takes the method's defaults.
        train, eval: a path, Examples, or a list of the view's records; None takes config.data.
        folder: where metrics and checkpoints go; None takes config.output_dir.
        callbacks: further transformers callbacks.
    """

    method, default_loss = "dpo", "sigmoid"  # of a trainer without a config
    load: Callable[..., TrainingData]  # from (train, eval, tokenizer, config) to units, as in trainers/inputs.py
    needs_reference = True  # False where the loss reads none: then no second set of weights, unless asked for

    def __init__(
        self,
        model: Any = None,
        config: RunConfig | None = None,
        *,
        train: Source = None,
        eval: Source = None,
        tokenizer: Any = None,
        folder: str | Path | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        config = config or RunConfig(method=self.method, loss={"name": self.default_loss})
        check_values(config)
        self.choose_loss(config)
        set_seed(config.seed)  # a fresh adapter is random
        policy, tokenizer = load_policy(model, tokenizer, config)
        self.extend(policy)
        self.data = self.load(train, eval, tokenizer, config)
        run_folder = Path(folder or config.output_dir or f"outputs/{config.method}")
        run_folder.mkdir(parents=True, exist_ok=True)
        super().__init__(policy, tokenizer, config, run_folder, self.data.train, self.data.evaluation, callbacks)
        other = None
        if config.reference.path:
            other = attach(load_model(replace(config.model, path=config.reference.path))).to(self.args.device)
            refuse_other_vocabulary(policy, other, config)
            layout, note = choose_layout(other, self.layout)  # both score the same batches
            if layout != self.layout:
                self.layout, self.layout_note = layout, note
        settings = config.reference
        self.base_is_start = is_adapted(policy) and not config.peft.path
        if settings.kind == "auto" and not self.base_is_start:
            settings = replace(settings, kind="frozen_copy")  # of the policy with the adapter that it begins with
        wanted = self.needs_reference or self.base_is_start or other or config.reference.kind != "auto"
        self.reference: Reference | None = build_reference(policy, settings, other) if wanted else None
        if isinstance(self.reference, MovingCopy):
            self.add_callback(_MoveReference(self.reference, policy, config.reference.update_steps or 1))

    def choose_loss(self, config: RunConfig) -> None:
        """Make the loss of `config`, before a model is loaded: what is wrong with it is said at once."""
        raise NotImplementedError

    def extend(self, policy: Any) -> None:
        """Add what a method trains besides, before the optimiser is made."""

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
            return AdapterOff(policy) if self.base_is_start else None
        return self.reference


def refuse_other_vocabulary(policy: Any, other: Any, config: RunConfig) -> None:
    """Token ids mean the same to both only where the vocabularies are the same size, at the least."""
    sizes = [causal_lm(each).config.get_text_config().vocab_size for each in (policy, other)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"reference.path={config.reference.path} has a vocabulary of {sizes[1]} tokens, the policy one of "
            f"{sizes[0]}: the reference must be of the same family"
        )


class _MoveReference(TrainerCallback):
    """TR-DPO: the reference follows the policy every `steps` optimizer steps."""

    def __init__(self, reference: MovingCopy, policy: Any, steps: int) -> None:
        self.reference, self.policy, self.steps = reference, policy, steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0:
            self.reference.follow(self.policy)
