"""transformers' Trainer, subclassed once: steps of a fixed number of examples, cut by token budget inside a step.

A method subclasses `AlignmentTrainer` and says one thing: `compute`, the per-example loss of some units.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from alignment import out_of_memory
from alignment.batching.groups import Group, Unit
from alignment.batching.microbatch import cut_by_tokens, groups_of
from alignment.batching.packing import Batch, pack
from alignment.batching.steps import StepSampler, balanced, steps_of
from alignment.batching.stored import digests, lengths_of
from alignment.config import RunConfig
from alignment.errors import Interrupted, UserError, nearest
from alignment.losses.pairwise import LossOutput
from alignment.models import quantised
from alignment.models.dropout import draws_masks
from alignment.models.layout_check import choose_layout
from alignment.models.logps import attach
from alignment.models.reference import eval_mode
from alignment.models.shards import keep_outputs
from alignment.models.value_head import without_value_head
from alignment.trainers import checkpoints, divergence, going_on, same_run
from alignment.trainers.arguments import training_arguments
from alignment.trainers.metrics import MetricSums
from alignment.trainers.nonfinite import NonFinite
from alignment.trainers.streaming import STREAM, UnitStream
from alignment.trainers.termination import TERMINATION, agree

# Tokens of a shared micro-batch that keep the device busy (a GPU, a CPU); beyond them, less padding is worth a pass.
ENOUGH_TOKENS = (4096, 512)


class AlignmentTrainer(Trainer):
    """The loop that every method shares.

    Args:
        model: a causal language model, with or without a peft adapter.
        tokenizer: its tokenizer; saved beside the model.
        config: the run's settings.
        folder: the run folder; checkpoints and metrics.jsonl go there.
        train, evaluation: units of token ids.
        callbacks: further transformers callbacks.
    """

    held_out_kind = "pairs"  # what a unit is: its name in the summary
    filler_completions = 2  # of a unit
    samples_itself = False  # True where the method is trained on its own samples

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: RunConfig,
        folder: Path,
        train: Sequence[Unit],
        evaluation: Sequence[Unit] = (),
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.config, self.folder = config, folder
        self.train_units, self.eval_units = train, evaluation
        training = config.training
        if training.eval_steps and not self.eval_units:
            raise UserError("training.eval_steps is set, but there is no held-out data: give data.eval_path")
        if config.guard.held_out and not self.samples_itself:
            raise UserError("guard.held_out scores sampled answers, and this method samples none: leave it out")
        attach(model)
        self.layout, self.layout_note = choose_layout(model, training.layout)
        if training.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        super().__init__(
            model=model,
            args=training_arguments(config, folder, self.planned_steps()),
            train_dataset=self.train_units,
            eval_dataset=self.eval_units or None,
            data_collator=lambda units: {"units": units},
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        if self.is_fsdp_enabled:
            keep_outputs(self.accelerator.state.fsdp_plugin)
        self.remove_callback(PrinterCallback)
        self.add_callback(_StopWhenAsked(self))
        self.add_callback(going_on.CatchUp(self))
        if training.early_stopping:
            self.add_callback(EarlyStoppingCallback(training.early_stopping))
        self.tokenizer, self.pad_id = tokenizer, tokenizer.pad_token_id
        # Fills up a rank's micro-batches with weight zero: sharded models hang unless all ranks run equally many.
        nothing = Group((self.pad_id,), ((self.pad_id,),) * self.filler_completions)
        self.filler = Unit("filler", (nothing,), {}, (nothing,))
        self.examples_in_step = training.batch_size
        self.statistic: torch.Tensor | None = None
        self.sums = MetricSums()
        self.nonfinite = NonFinite(self, training.skip_nonfinite)
        self.divergence = divergence.Divergence(config.guard, config.loss.get("beta"))
        self.roll_back_before: int | None = None  # the step that a rollback must lie before
        self.asked_to_stop = False  # by SIGTERM
        self.evaluated_at: int | None = None  # the step of the last evaluation
        self.evaluation_missed = False  # by the run that goes on: it was due at the checkpoint's step
        self.tokens_since_log = 0
        self.tokens_seen, self.train_seconds = 0.0, 0.0  # useful tokens of all ranks, time in training steps
        self._seconds_since_log = 0.0

    # -- what a method says ------------------------------------------------------------------------------------------

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """Per-unit losses (len(units),) of one micro-batch, whose groups are packed in `batch`, in the units' order."""
        raise NotImplementedError

    def step_statistics(self, model: nn.Module, units: Sequence[Unit], training: bool) -> torch.Tensor | None:
        """What the loss needs of a whole optimizer step, reduced over ranks; `units` are this rank's share of it.

        `compute` finds it in `self.statistic`. Most losses need none: their value depends on one unit alone.
        """
        return None

    def planned_steps(self) -> int:
        """Optimizer steps of the run."""
        training = self.config.training
        return training.max_steps or steps_of(len(self.train_units), training.batch_size, training.epochs)

    def passes(self, steps: int) -> float:
        """How often each training example was read, on average, after so many steps: the `epoch` of metrics.jsonl."""
        if isinstance(self.train_units, UnitStream):
            return float(self.train_units.position.turn)
        return steps * self.config.training.batch_size / len(self.train_units)

    # -- a step ------------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Index batches of one optimizer step each; already this rank's share, so accelerate must not cut it again."""
        if isinstance(self.train_units, UnitStream):
            ranks = (self.accelerator.process_index, self.accelerator.num_processes)
            return self.train_units.loader(self.args.max_steps, self.layout, *ranks)
        sampler = StepSampler(
            len(self.train_units),
            self.config.training.batch_size,
            self.args.max_steps,
            self.config.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            lengths_of(self.train_units, self.layout),
        )
        # Its own generator: the loader draws a seed at every start, which would shift the model's dropout on resume.
        generator = torch.Generator().manual_seed(self.config.seed)
        return DataLoader(self.train_units, batch_sampler=sampler, collate_fn=self.data_collator, generator=generator)  # type: ignore[arg-type]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradient of the mean loss over the step's examples; the micro-batches only bound the memory."""
        started = time.perf_counter()
        model.train()
        # DDP takes the mean over ranks, the step wants the sum over all ranks divided by the number of examples.
        weight = self.accelerator.num_processes / self.examples_in_step
        self.statistic = self.step_statistics(model, inputs["units"], training=True)
        pieces = self.micro_batches(inputs["units"])
        total = torch.zeros((), device=self.args.device)
        for number, units in enumerate(pieces):
            last = number == len(pieces) - 1
            self.accelerator.gradient_state._set_sync_gradients(last)  # DeepSpeed makes its update in a backward pass
            with (
                self.named_if_too_large(units or [self.filler], f"training step {self.state.global_step + 1}"),
                nullcontext() if last else self.accelerator.no_sync(model),
            ):
                output = self.run(model, units or [self.filler])
                loss = output.values.sum() * (weight if units else 0.0)
                self.accelerator.backward(loss)
            if units:
                self.sums.add(output.metrics, output.counted)
                self.nonfinite.add(units, output.values)
                self.divergence.add(units, output.metrics)
                total += loss.detach()
        self.tokens_since_log += sum(unit.useful_tokens for unit in inputs["units"])
        self._seconds_since_log += time.perf_counter() - started
        return torch.where(total.isfinite(), total, 0.0)  # Trainer's running sum would stay NaN

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if self.nonfinite.look(norm):
            model.zero_grad()  # no gradient at all, so that no optimiser moves by its momentum
        return norm

    @contextmanager
    def named_if_too_large(self, units: Sequence[Unit], doing: str) -> Iterator[None]:
        """Out of memory inside ends the run with the shape of these units, and the steps so far are kept."""
        try:
            with out_of_memory.named(lambda: out_of_memory.micro_batch(self, units, doing)):
                yield
        except out_of_memory.OutOfMemory:
            self.keep_steps_alone()
            raise

    def share(self, units: Sequence[Any]) -> list[Any]:
        """This rank's units of `units`, in order: all ranks have nearly the same number of tokens."""
        shares = balanced(lengths_of(units, self.layout), self.accelerator.num_processes)
        return [units[place] for place in shares[self.accelerator.process_index]]

    def micro_batches(self, units: Sequence[Unit]) -> list[list[Unit]]:
        """This rank's micro-batches, filled up with empty ones so that all ranks run equally many."""
        enough = ENOUGH_TOKENS[self.args.device.type == "cpu"] if self.layout == "shared" else math.inf
        pieces = cut_by_tokens(units, self.config.training.token_budget, self.layout, enough)
        most = len(pieces)
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.gather(torch.tensor([most], device=self.args.device))
            most = int(counts.max())
        return pieces + [[] for _ in range(max(most, 1) - len(pieces))]

    def run(self, model: nn.Module, units: Sequence[Unit], compute: Any = None) -> LossOutput:
        """Pack and compute one micro-batch, under the run's autocast; `compute` stands in for the method's own."""
        batch = pack(groups_of(units), self.layout, self.pad_id).to(self.args.device)
        with self.accelerator.autocast():
            return (compute or self.compute)(model, units, batch)

    # -- held-out pairs ----------------------------------------------------------------------------------------------

    def evaluate(self, *unused: Any, metric_key_prefix: str = "eval", **also_unused: Any) -> dict[str, float]:
        """Mean loss and metrics over all held-out units, without gradient or dropout."""
        try:
            return self._evaluated(metric_key_prefix)
        except Interrupted:  # on all ranks alike
            self.keep_steps()
            raise

    def _evaluated(self, metric_key_prefix: str) -> dict[str, float]:
        share = self.share(self.eval_units)
        sums = MetricSums()
        with eval_mode(self.model_wrapped):
            self.statistic = self.step_statistics(self.model_wrapped, share, training=False)
            for units in self.micro_batches(share):
                with self.named_if_too_large(units or [self.filler], "scoring held-out data"):
                    output = self.run(self.model_wrapped, units or [self.filler])
                if units:
                    sums.add({"loss": output.values, **output.metrics}, output.counted)
                TERMINATION.raise_if_agreed(self.accelerator)
        means, _ = sums.means(self.accelerator)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        best = self.args.metric_for_best_model
        if best is not None and best not in metrics:
            name = self.config.training.best_metric
            raise UserError(f"training.best_metric={name} is not measured: {nearest(name, means)}")
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.evaluated_at = self.state.global_step
        return metrics

    # -- what is written ---------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the running means to a training row, and append every row to metrics.jsonl."""
        if "loss" in logs:
            means, host = self.sums.means(self.accelerator, tokens=self.tokens_since_log)
            logs.update(means)
            self.tokens_seen += host["tokens"]
            self.train_seconds += self._seconds_since_log
            logs["tokens_per_second"] = host["tokens"] / max(self._seconds_since_log, 1e-9)
            self.sums, self.tokens_since_log, self._seconds_since_log = MetricSums(), 0, 0.0
            if self.nonfinite.loss_unknown:
                logs["loss"], self.nonfinite.loss_unknown = math.nan, False
            if self.nonfinite.skipped:
                logs["skipped_steps"] = self.nonfinite.skipped
        if "train_runtime" in logs:
            return  # Trainer's own summary; ours is summary.json
        super().log(logs, start_time)
        logs["epoch"] = self.passes(self.state.global_step)
        self.state.log_history[-1]["epoch"] = logs["epoch"]
        if self.is_world_process_zero():
            row = {"step": self.state.global_step, **{name: _plain(value) for name, value in logs.items()}}
            with open(self.folder / going_on.METRICS, "a") as file:
                file.write(json.dumps(row) + "\n")
        if self.is_in_train:
            divergence.look(self, logs)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # Trainer's estimate counts padded input_ids, which a step here does not have

    def save_policy(self, folder: Path) -> None:
        """Save the adapter or the whole model with its tokenizer, as plain peft or transformers folders."""
        state = None if self._sharding == "none" else self.accelerator.get_state_dict(self.model_wrapped)
        if self.is_world_process_zero():
            policy = self.accelerator.unwrap_model(self.model)
            with without_value_head(policy):
                if state is not None:  # gathered by name: a tied weight came twice, and the value head with the rest
                    names = {name for name, _ in [*policy.named_parameters(), *policy.named_buffers()]}
                    state = {name: value for name, value in state.items() if name in names}
                policy.save_pretrained(folder, state_dict=state)
            quantised.note(folder, self.config.model.quantization, self.config.model.dtype)
            self.tokenizer.save_pretrained(folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """All that an exact resume needs, written beside and renamed when whole. UserError: the disk is full."""
        step = self.state.global_step
        with checkpoints.disk_named(self.folder, step):
            self._write_checkpoint(step, checkpoints.staging_folder(self.folder, step))

    def _write_checkpoint(self, step: int, staged: Path) -> None:
        if self.state.best_global_step == step:
            self.state.best_model_checkpoint = str(checkpoints.checkpoint_folder(self.folder, step))
        self.save_model(str(staged), _internal_call=True)
        self._save_optimizer_and_scheduler(str(staged))
        self._save_scaler(str(staged))
        self._save_rng_state(str(staged))
        self.save_method_state(staged)
        self._note_callback_states()
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self.state.save_to_json(str(staged / "trainer_state.json"))
            going_on.write(self, staged)
            spread = (self.accelerator.num_processes, self._sharding, draws_masks(self.model))
            same_run.write_stamp(staged, self.config, self._digests, *spread)
            if isinstance(self.train_units, UnitStream):
                (staged / STREAM).write_text(json.dumps(self.train_units.state(step)))
            checkpoints.publish(self.folder, step)
            checkpoints.rotate(self.folder, self.config.training.save_total_limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def keep_steps(self) -> None:
        """A checkpoint of the steps so far, where there is none yet; before an error or a signal ends the run."""
        step = self.state.global_step
        if step and not checkpoints.checkpoint_folder(self.folder, step).is_dir():
            self._save_checkpoint(self.model_wrapped)

    def keep_steps_alone(self) -> None:
        """`keep_steps` before an error of this process alone: several write a checkpoint together, or none."""
        if self.optimizer is not None:  # there is none before training
            self.optimizer.zero_grad()
        if self.accelerator.num_processes == 1:
            self.keep_steps()

    def save_method_state(self, folder: Path) -> None:
        """Write what a method must find again on resume, beside weights and optimiser; called on every rank."""

    def load_method_state(self, folder: Path) -> None:
        """Take back what `save_method_state` wrote."""

    def _note_callback_states(self) -> None:
        """Early stopping's count goes into trainer_state.json, so that a resumed run stops where it would have."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                states: Any = self.state.stateful_callbacks
                states[type(callback).__name__] = callback.state()

    @functools.cached_property
    def _digests(self) -> list[str]:
        return digests(self.train_units)

    @property
    def _sharding(self) -> str:
        return "fsdp" if self.is_fsdp_enabled else "deepspeed" if self.is_deepspeed_enabled else "none"

    def resume(self, checkpoint: Path) -> Any:
        """Go on from a whole checkpoint.

        Raises:
            UserError: other settings, data or number of processes, with which the remaining steps would be other ones.
        """
        processes = self.accelerator.num_processes
        rounding = same_run.check_run(checkpoint, self.config, self.train_units, processes, self._sharding)
        if self.is_world_process_zero():
            if rounding:
                print(f"resuming with {'; '.join(rounding)}: the same updates, but not bit for bit")
            checkpoints.remove_staged(self.folder)
            going_on.keep_rows_until(self.folder / going_on.METRICS, checkpoints.step_of(checkpoint))
        with checkpoints.readable(checkpoint, KeyError, TypeError, ValueError, AttributeError, OSError, RecursionError):
            self._load_states(checkpoint)
        with checkpoints.readable(checkpoint):
            return self.train(resume_from_checkpoint=str(checkpoint))

    def _load_states(self, checkpoint: Path) -> None:
        """What method and guards have kept in `checkpoint`."""
        self.load_method_state(checkpoint)
        if isinstance(self.train_units, UnitStream):
            self.train_units.go_to(json.loads((checkpoint / STREAM).read_text()))
        going_on.load(self, checkpoint)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train to the end; where the guard stopped it with guard.action=roll_back, go back to a checkpoint before."""
        found = None
        try:
            found = super().train(*args, **kwargs)
        except going_on.NoStepLeft:
            going_on.finish(self)
        if self.roll_back_before is not None and not self.config.training.keep_best:
            divergence.roll_back(self)
        return found


class _StopWhenAsked(TrainerCallback):
    """SIGTERM, agreed over ranks after the optimizer step: save, and stop without evaluating."""

    def __init__(self, trainer: AlignmentTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if agree(self.trainer.accelerator, TERMINATION.requested()):
            self.trainer.asked_to_stop = True
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False


def _plain(value: Any) -> Any:
    """As JSON has it: NaN and infinity are null."""
    value = value.item() if torch.is_tensor(value) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
