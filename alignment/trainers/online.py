"""The loop of the methods that learn from their own samples: sample, ask for feedback, take some steps, again.

One Trainer step is one optimizer step. The first step of a phase samples the phase's prompts, asks the feedback and
scores what was sampled under the policy and the reference; then every step of the phase takes its part of it. Sampler,
feedback and experience are objects that the trainer holds. Which prompts, random numbers and parts a step takes follows
from the seed and the step alone, so that a resumed run goes on with the same ones.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.batching.steps import StepSampler
from alignment.config import RunConfig
from alignment.errors import Interrupted, UserError
from alignment.feedback.adapters import as_reward
from alignment.feedback.build import build_feedback
from alignment.feedback.ranks import over_ranks
from alignment.losses.policy_gradient import Samples
from alignment.models.logps import token_logps
from alignment.rollouts.experience import Experience, rewards_of, token_values
from alignment.rollouts.sampler import PolicySampler
from alignment.rollouts.sampling import SamplingSettings, check_unbiased
from alignment.trainers import checkpoints
from alignment.trainers.guards import Guards
from alignment.trainers.inputs import Source, TrainingData, load_prompts
from alignment.trainers.map_units import gathered, token_rows
from alignment.trainers.policy import PolicyTrainer

EXPERIENCE = "experience.json"  # in a checkpoint: what the steps left of the phase need
SHOWN = 4  # samples of a phase in rollouts.jsonl


def _load_only_prompts(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """Held-out prompts are answered at the end of the run; there are no held-out labels."""
    return replace(load_prompts(train, evaluation, tokenizer, config), evaluation=[])


class OnlineTrainer(PolicyTrainer):
    """Train a policy on what it samples and what a feedback object says of it.

    Args: as of `PolicyTrainer`; `train` may be a list of `Prompt`.
        feedback: a Reward, Judge or Critic; None builds config.feedback.
    """

    load = staticmethod(_load_only_prompts)
    held_out_kind = "prompts"
    kl_setting, default_kl = "kl_coef", 0.05  # the loss's setting that weighs the KL, and what it is where not given

    def __init__(
        self, model: Any = None, config: RunConfig | None = None, *, feedback: Any = None, **rest: Any
    ) -> None:
        super().__init__(model, config, **rest)
        settings, batch_size = self.config.rollout, self.config.training.batch_size
        if settings.prompts % batch_size:
            raise UserError(
                f"rollout.prompts={settings.prompts} must be a multiple of training.batch_size={batch_size}"
            )
        if feedback is None and not self.config.feedback:
            raise UserError("no feedback: give feedback=NAME (align train --help lists them)")
        self.sampling = SamplingSettings(
            settings.max_new_tokens, settings.temperature, settings.top_p, settings.top_k, settings.batch_size
        )
        check_unbiased(self.sampling)
        self.sampler = PolicySampler(self.model, self.tokenizer, self.sampling, self.accelerator)
        self.feedback = over_ranks(self.as_wanted(feedback or build_feedback(self.config.feedback)))
        self.phases = StepSampler(len(self.train_units), settings.prompts, 0, self.config.seed)
        self.steps_per_phase = settings.epochs * settings.prompts // batch_size
        self.phase, self.experience = -1, list[Experience]()
        self.guards = Guards(settings, self.config.loss.get(self.kl_setting, self.default_kl))
        self.filler = Experience.filler(self.pad_id, self.completions)
        self.phase_metrics: dict[str, float] = {}
        self.progress = 0.0  # share of the run's steps that are taken
        self.add_callback(_TellSampler(self))

    # -- what a method may say -----------------------------------------------------------------------------------------

    @property
    def completions(self) -> int:
        """Completions of a unit that are trained on."""
        return self.config.rollout.completions

    def as_wanted(self, feedback: Any) -> Any:
        """The feedback as the protocol that the method asks."""
        return as_reward(feedback)

    def sample(self, units: Sequence[Unit], phase: int) -> list[Experience]:
        """This rank's share of a phase: each prompt with its completions."""
        k = self.config.rollout.completions
        rollouts = self.sampler.sample([unit.groups[0].prompt for unit in units], k, self.seed_of(phase))
        return [Experience.of(unit.id, rollouts[at * k : (at + 1) * k]) for at, unit in enumerate(units)]

    def judge(self, experience: Sequence[Experience]) -> list[Experience]:
        """The same with rewards, from one call of the feedback over all ranks' samples."""
        k = self.config.rollout.completions
        records = [self.data.records[unit.id] for unit in experience for _ in range(k)]
        texts = [text for unit in experience for text in unit.texts]
        scores = self.feedback.score([r.prompt for r in records], texts, [r.meta for r in records])
        return [unit.judged(scores[at * k : (at + 1) * k]) for at, unit in enumerate(experience)]

    def prepare(self, experience: list[Experience]) -> list[Experience]:
        """The phase's experience with whatever else the loss needs of it."""
        return experience

    # -- a phase -------------------------------------------------------------------------------------------------------

    def collect(self, phase: int) -> None:
        """Sample, judge and score the prompts of `phase`. Every rank makes a share and holds all."""
        chosen = [self.train_units[index] for index in self.phases.step(phase)]
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = list(zip(range(rank, len(chosen), ranks), self.sample(chosen[rank::ranks], phase), strict=True))
        sampled = [unit for _, unit in sorted(gathered(self, mine), key=lambda item: item[0])]
        judged = [self._with_penalty(unit) for unit in self._judged(sampled)]
        kept = [unit for unit in judged if all(map(math.isfinite, unit.rewards))]
        if not kept:
            raise UserError(
                f"the feedback gave no verdict on any of the {len(judged)} prompts sampled at step "
                f"{self.state.global_step}: {dict(getattr(self.feedback, 'counts', {})) or 'NaN or infinite scores'}"
            )
        kept = self._scaled(kept) if self.config.rollout.scale_rewards else kept
        old = token_rows(self, kept, lambda model, units, batch: token_logps(model, batch, self.sampling.temperature))
        reference = token_rows(self, kept, self._reference_tokens)
        scored = zip(kept, old, reference, strict=True)
        self.experience = self.prepare([replace(unit, old=own, reference=others) for unit, own, others in scored])
        self.phase = phase
        self._report(len(judged))

    def _judged(self, sampled: list[Experience]) -> list[Experience]:
        """What the feedback says; where it fails, the steps so far are kept in a checkpoint first."""
        try:
            return self.judge(sampled)
        except Interrupted:
            raise
        except Exception as error:
            step = self.state.global_step
            if step and not checkpoints.checkpoint_folder(self.folder, step).is_dir():
                self._save_checkpoint(self.model_wrapped)
            mend = f"the {step} steps so far are kept: resume={self.folder}" if step else "nothing was trained yet"
            raise UserError(
                f"the feedback failed at step {step}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                f"\nMend: {mend}"
            ) from error

    def _with_penalty(self, unit: Experience) -> Experience:
        penalty = self.config.rollout.missing_end_penalty
        if not penalty:
            return unit
        rewards = zip(unit.rewards, unit.finished, strict=False)
        return replace(unit, rewards=tuple(r if done else r - penalty for r, done in rewards))

    def _scaled(self, units: list[Experience]) -> list[Experience]:
        spread = statistics.pstdev([reward for unit in units for reward in unit.rewards]) or 1.0
        return [replace(unit, rewards=tuple(reward / spread for reward in unit.rewards)) for unit in units]

    def _reference_tokens(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        assert self.reference is not None
        with self.reference.active(model) as reference:
            return token_logps(reference, batch, self.sampling.temperature)

    def _report(self, sampled: int) -> None:
        """Metrics of the phase, the guards' look at it, and some samples to read."""
        kl = [sum(map(sum, unit.old)) - sum(map(sum, unit.reference)) for unit in self.experience]
        per_answer = statistics.fmean(kl) / self.completions
        finished = [done for unit in self.experience for done in unit.finished]
        self.phase_metrics = {
            "sampled_kl": per_answer,
            "no_verdict": 1 - len(self.experience) / sampled,
            "truncated": 1 - statistics.fmean(finished),
        }
        self.guards.look(per_answer, [text for unit in self.experience for text in unit.texts])
        if self.guards.stop:
            self.control.should_training_stop = self.control.should_save = True
        if self.is_world_process_zero():
            for line in self.guards.said:
                print(line)
            with open(self.folder / "rollouts.jsonl", "a", encoding="utf-8") as file:
                for unit in self.experience[:SHOWN]:
                    prompt = self.data.records[unit.id].prompt[-1]["content"]
                    row = {"phase": self.phase, "prompt": prompt, "answers": unit.texts, "rewards": unit.rewards}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def seed_of(self, phase: int) -> int:
        return self.config.seed * 1_000_003 + phase

    # -- a step --------------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The step's part of its phase's experience, in place of what the data loader gave."""
        phase, place = divmod(self.state.global_step, self.steps_per_phase)
        if phase != self.phase:
            self.collect(phase)
        units = self.part(place)
        self.examples_in_step = max(1, len(units))
        self.progress = self.state.global_step / max(1, self.args.max_steps)
        share = units[self.accelerator.process_index :: self.accelerator.num_processes]
        return super().training_step(model, {"units": share})

    def part(self, place: int) -> list[Experience]:
        """The units of the `place`-th step of the phase; prompts without a verdict make the parts smaller."""
        parts = self.config.rollout.prompts // self.config.training.batch_size
        epoch, number = divmod(place, parts)
        order = list(self.experience)
        random.Random(f"{self.config.seed} {self.phase} {epoch}").shuffle(order)
        return order[number * len(order) // parts : (number + 1) * len(order) // parts]

    def samples(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> Samples:
        """What a loss reads of a micro-batch."""
        return self.samples_of(token_logps(model, batch, self.sampling.temperature), units, batch)

    @staticmethod
    def samples_of(tokens: Tensor, units: Sequence[Any], batch: Batch) -> Samples:
        """The same with the policy's log-probs (N,) at hand."""
        device = batch.input_ids.device
        return Samples(
            tokens,
            token_values(units, "old", device),
            token_values(units, "reference", device),
            batch.owners,
            rewards_of(units, device),
        )

    @property
    def kl_coef(self) -> float:
        """The coefficient of the KL now: its schedule, times what the guard made of it."""
        return self.guards.coefficient(self.progress)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.phase_metrics, kl_coef=self.kl_coef)
        super().log(logs, start_time)

    # -- what is kept --------------------------------------------------------------------------------------------------

    def save_method_state(self, folder: Path) -> None:
        super().save_method_state(folder)
        if self.is_world_process_zero():
            kept = [unit.to_dict() for unit in self.experience]
            state = {
                "phase": self.phase,
                "experience": kept,
                "metrics": self.phase_metrics,
                "raised": self.guards.raised,
            }
            (folder / EXPERIENCE).write_text(json.dumps(state))

    def load_method_state(self, folder: Path) -> None:
        super().load_method_state(folder)
        state = json.loads((folder / EXPERIENCE).read_text())
        self.phase, self.phase_metrics, self.guards.raised = state["phase"], state["metrics"], state["raised"]
        self.experience = [Experience.from_dict(stored) for stored in state["experience"]]


class _TellSampler(TrainerCallback):
    """A sampler with weights of its own takes over the policy's after each update."""

    def __init__(self, trainer: OnlineTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.sampler.update(self.trainer.accelerator.unwrap_model(self.trainer.model))
