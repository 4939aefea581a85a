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

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.batching.steps import StepSampler, steps_of
from alignment.config import RunConfig
from alignment.errors import Interrupted, UserError
from alignment.feedback.adapters import as_reward
from alignment.feedback.build import build_feedback
from alignment.feedback.ranks import over_ranks
from alignment.losses.policy_gradient import Samples
from alignment.models.logps import token_logps
from alignment.out_of_memory import OutOfMemory
from alignment.rollouts.experience import Experience, rewards_of, token_values
from alignment.rollouts.sampler import PolicySampler, check_room
from alignment.rollouts.sampling import SamplingSettings, check_unbiased
from alignment.trainers import checkpoints
from alignment.trainers.going_on import keep_rows_until
from alignment.trainers.guards import Guards
from alignment.trainers.inputs import Source, TrainingData, load_prompts
from alignment.trainers.map_units import gathered, token_rows
from alignment.trainers.policy import PolicyTrainer

EXPERIENCE = "experience.json"  # in a checkpoint: what the steps left of the phase need
ROLLOUTS = "rollouts.jsonl"  # in the run folder: some samples of each phase
SHOWN = 4  # so many


def load_only_prompts(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """Held-out prompts are answered at the end of the run; there are no held-out labels."""
    return replace(load_prompts(train, evaluation, tokenizer, config), evaluation=[])


def given_feedback(feedback: Any, config: RunConfig) -> Any:
    """`feedback`, or where that is None what the configuration says."""
    if feedback is None and not config.feedback:
        raise UserError("no feedback: give feedback=NAME (align train --help lists them)")
    return feedback or build_feedback(config.feedback)


def penalised(rewards: Sequence[float], finished: Sequence[bool], penalty: float) -> list[float]:
    """The rewards, less the penalty for each completion that was cut."""
    return [reward if done else reward - penalty for reward, done in zip(rewards, finished, strict=True)]


class OnlineTrainer(PolicyTrainer):
    """Train a policy on what it samples and what a feedback object says of it.

    Args: as of `PolicyTrainer`; `train` may be a list of `Prompt`.
        feedback: a Reward, Judge or Critic; None builds config.feedback.
    """

    load = staticmethod(load_only_prompts)
    held_out_kind = "prompts"
    samples_itself = True
    kl_setting: str | None = "kl_coef"  # the loss's setting that weighs the KL; None: it has none
    default_kl = 0.05  # what it is where not given
    no_verdict = "NaN or infinite scores"  # why a prompt may have none

    def __init__(
        self, model: Any = None, config: RunConfig | None = None, *, feedback: Any = None, **rest: Any
    ) -> None:
        super().__init__(model, config, **rest)
        settings, batch_size = self.config.rollout, self.config.training.batch_size
        if settings.prompts % batch_size:
            raise UserError(
                f"rollout.prompts={settings.prompts} must be a multiple of training.batch_size={batch_size}"
            )
        self.sampling = SamplingSettings(
            settings.max_new_tokens, settings.temperature, settings.top_p, settings.top_k, settings.batch_size
        )
        check_unbiased(self.sampling, "rollout")
        # All prompts on every rank, before the first step: a rank that stops alone leaves the others waiting.
        check_room(self.model, [unit.groups[0].prompt for unit in self.train_units], settings.max_new_tokens)
        self.sampler = PolicySampler(self.model, self.tokenizer, self.sampling, self.accelerator)
        self.feedback = over_ranks(self.as_wanted(given_feedback(feedback, self.config)))
        self.phases = StepSampler(len(self.train_units), settings.prompts, 0, self.config.seed)
        self.phase, self.experience = -1, list[Experience]()
        self.guards = Guards(settings, self._kl_at_start())
        held_out = self.config.guard.held_out
        named = {"name": held_out} if isinstance(held_out, str) else held_out
        self.held_out_reward = over_ranks(as_reward(build_feedback(named))) if named else None
        self.filler = Experience.filler(self.pad_id, self.completions)
        self.phase_metrics: dict[str, float] = {}
        self.progress = 0.0  # share of the run's steps that are taken
        self.add_callback(_TellSampler(self))

    def _kl_at_start(self) -> float:
        settings = self.config.rollout
        if self.kl_setting is not None:
            return self.config.loss.get(self.kl_setting, self.default_kl)
        if settings.kl_coef_end is not None or settings.on_kl_limit == "raise":
            name = "kl_coef_end" if settings.kl_coef_end is not None else "on_kl_limit=raise"
            raise UserError(f"rollout.{name}: the loss of {self.method} has no coefficient of the KL; leave it out")
        return 0.0

    @property
    def steps_per_phase(self) -> int:
        settings = self.config.rollout
        return settings.epochs * settings.prompts // self.config.training.batch_size

    def planned_steps(self) -> int:
        """training.max_steps, or whole phases that sample each prompt training.epochs times."""
        training = self.config.training
        phases = steps_of(len(self.train_units), self.config.rollout.prompts, training.epochs)
        return training.max_steps or phases * self.steps_per_phase

    def passes(self, steps: int) -> float:
        return super().passes(steps) / self.config.rollout.epochs

    # -- what a method may say -----------------------------------------------------------------------------------------

    @property
    def completions(self) -> int:
        """Completions of a unit that are trained on."""
        return self.config.rollout.completions

    def as_wanted(self, feedback: Any) -> Any:
        """The feedback as the protocol that the method asks."""
        return as_reward(feedback)

    def units_of(self, phase: int) -> list[Unit]:
        """The prompts of a phase, the same ones on every rank."""
        return [self.train_units[index] for index in self.phases.step(phase)]

    def sample(self, units: Sequence[Unit], phase: int) -> list[Experience]:
        """This rank's share of a phase: each prompt with its completions."""
        k = self.config.rollout.completions
        rollouts = self.sampler.sample([unit.groups[0].prompt for unit in units], k, self.seed_of(phase))
        return [Experience.of(unit.id, rollouts[at * k : (at + 1) * k]) for at, unit in enumerate(units)]

    def judge(self, experience: Sequence[Experience]) -> list[Experience]:
        """The same with rewards, from one call of the feedback over all ranks' samples; NaN is no verdict."""
        k = self.config.rollout.completions
        records = [self.data.records[unit.id] for unit in experience for _ in range(k)]
        texts = [text for unit in experience for text in unit.texts]
        scores = self.feedback.score([r.prompt for r in records], texts, [r.meta for r in records])
        return [self.with_penalty(unit.judged(scores[at * k : (at + 1) * k])) for at, unit in enumerate(experience)]

    def with_penalty(self, unit: Experience) -> Experience:
        """Less `rollout.missing_end_penalty` for each completion that was cut; before any is chosen by its reward."""
        return unit.judged(penalised(unit.rewards, unit.finished, self.config.rollout.missing_end_penalty))

    def prepare(self, experience: list[Experience]) -> list[Experience]:
        """The phase's experience with whatever else the loss needs of it."""
        return experience

    # -- a phase -------------------------------------------------------------------------------------------------------

    def collect(self, phase: int) -> None:
        """Sample, judge and score the prompts of `phase`. Every rank makes a share and holds all."""
        chosen = self.units_of(phase)
        ranks, rank = self.accelerator.num_processes, self.accelerator.process_index
        places = share_of(rank, ranks, [unit.groups[0].prompt for unit in chosen])
        mine = list(zip(places, self.sample([chosen[place] for place in places], phase), strict=True))
        sampled = [unit for _, unit in sorted(gathered(self, mine), key=lambda item: item[0])]
        judged = self._judged(sampled)
        kept = [unit for unit in judged if all(map(math.isfinite, unit.rewards))]
        if not kept:
            why = dict(getattr(self.feedback, "counts", {})) or self.no_verdict
            raise UserError(
                f"the feedback gave no verdict on any of the {len(judged)} prompts sampled at step "
                f"{self.state.global_step}: {why}\nMend: {self._resuming}"
            )
        kept = self._scaled(kept) if self.config.rollout.scale_rewards else kept
        old = token_rows(self, kept, lambda model, units, batch: token_logps(model, batch, self.sampling.temperature))
        reference = token_rows(self, kept, self._reference_tokens)
        scored = zip(kept, old, reference, strict=True)
        self.experience = self.prepare([replace(unit, old=own, reference=others) for unit, own, others in scored])
        self.phase = phase
        self._report(sampled)

    def _judged(self, sampled: list[Experience]) -> list[Experience]:
        """What the feedback says; where it fails, a UserError."""
        try:
            return self.judge(sampled)
        except Interrupted:
            raise
        except Exception as error:
            raise UserError(
                f"the feedback failed at step {self.state.global_step}: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}\nMend: {self._resuming}"
            ) from error

    @property
    def _resuming(self) -> str:
        step = self.state.global_step
        return f"the {step} steps so far are kept: resume={self.folder}" if step else "nothing was trained yet"

    def _scaled(self, units: list[Experience]) -> list[Experience]:
        """Rewards over their spread within prompts, so that what differs from prompt to prompt scales nothing."""
        within = [reward - statistics.fmean(unit.rewards) for unit in units for reward in unit.rewards]
        spread = math.sqrt(statistics.fmean(value * value for value in within)) or 1.0
        return [replace(unit, rewards=tuple(reward / spread for reward in unit.rewards)) for unit in units]

    def _reference_tokens(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        assert self.reference is not None
        with self.reference.active(model) as reference:
            return token_logps(reference, batch, self.sampling.temperature)

    def _report(self, sampled: Sequence[Experience]) -> None:
        """Metrics of the phase, the guards' look at all that was sampled in it, and some samples to read."""
        kl = [sum(map(sum, unit.old)) - sum(map(sum, unit.reference)) for unit in self.experience]
        per_answer = statistics.fmean(kl) / self.completions
        finished = [done for unit in sampled for done in unit.finished]
        self.phase_metrics = {
            "sampled_kl": per_answer,
            "no_verdict": 1 - len(self.experience) / len(sampled),
            "truncated": 1 - statistics.fmean(finished),
        }
        if self.held_out_reward is not None:
            self.phase_metrics["held_out_reward"] = self._held_out_mean(sampled)
        self.guards.look(per_answer, [text for unit in sampled for text in unit.texts])
        if self.guards.stop:
            self.control.should_training_stop = self.control.should_save = True
        if self.is_world_process_zero():
            for line in self.guards.said:
                print(line)
            with open(self.folder / ROLLOUTS, "a", encoding="utf-8") as file:
                for unit in self.experience[:SHOWN]:
                    record = self.data.records[unit.id]
                    row = {"step": self.state.global_step, "phase": self.phase, "prompt": record.prompt[-1]["content"]}
                    row |= {"reference": record.meta["reference"]} if "reference" in record.meta else {}
                    row |= {"answers": unit.texts, "rewards": unit.rewards}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _held_out_mean(self, sampled: Sequence[Experience]) -> float:
        """Mean of the reward that is not trained on, over the phase's answers with a verdict; NaN where none has."""
        assert self.held_out_reward is not None
        records = [self.data.records[unit.id] for unit in sampled for _ in unit.texts]
        texts = [text for unit in sampled for text in unit.texts]
        scores = self.held_out_reward.score([r.prompt for r in records], texts, [r.meta for r in records])
        known = [score for score in scores if math.isfinite(score)]
        return statistics.fmean(known) if known else math.nan

    def seed_of(self, phase: int) -> int:
        return self.config.seed * 1_000_003 + phase

    # -- a step --------------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The step's part of its phase's experience, in place of what the data loader gave."""
        phase, place = divmod(self.state.global_step, self.steps_per_phase)
        self.progress = self.state.global_step / max(1, self.args.max_steps)
        if phase != self.phase:
            try:
                self.collect(phase)
            except OutOfMemory:
                self.keep_steps_alone()
                raise
            except (Interrupted, UserError):  # on all ranks alike
                self.keep_steps()
                raise
        units = [] if self.guards.stop else self.part(place)
        if not units:  # no gradient at all, so that no optimiser moves by its momentum
            return torch.zeros((), device=self.args.device)
        self.examples_in_step = len(units)
        return super().training_step(model, {"units": self.share(units)})

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
            logs.update(self.phase_metrics)
            if self.kl_setting is not None:
                logs["kl_coef"] = self.kl_coef
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
                "stop": self.guards.stop,
            }
            (folder / EXPERIENCE).write_text(json.dumps(state))

    def load_method_state(self, folder: Path) -> None:
        super().load_method_state(folder)
        state = json.loads((folder / EXPERIENCE).read_text())
        self.phase, self.phase_metrics, self.guards.raised = state["phase"], state["metrics"], state["raised"]
        self.experience = [Experience.from_dict(stored) for stored in state["experience"]]
        if state["stop"]:  # the KL limit ended the run with this checkpoint: no step is left
            self.args.max_steps = checkpoints.step_of(folder)
        if self.is_world_process_zero():  # a phase that is noted with the checkpoint's step is sampled again
            keep_rows_until(self.folder / ROLLOUTS, checkpoints.step_of(folder) - 1)


def share_of(rank: int, ranks: int, prompts: Sequence[tuple[int, ...]]) -> list[int]:
    """The places of the prompts that this rank samples; one that comes twice goes to one rank.

    A sampler tells the copies of a prompt apart by their number, and knows its own alone: shared out, they would draw
    the same completions.
    """
    first: dict[tuple[int, ...], int] = {}
    owners = [first.setdefault(prompt, place) % ranks for place, prompt in enumerate(prompts)]
    return [place for place, owner in enumerate(owners) if owner == rank]


class _TellSampler(TrainerCallback):
    """A sampler with weights of its own takes over the policy's after each update."""

    def __init__(self, trainer: OnlineTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.sampler.update(self.trainer.accelerator.unwrap_model(self.trainer.model))
