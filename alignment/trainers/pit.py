"""PIT, stage 3: reinforcement learning on the gap, over a curriculum of reference answers (2310.00898, sec. 3.3).

View: reference answers y_ref: both answers of each pair, and later what the policy M_P answers (sampled once for each
prompt, since M_P is frozen). Prompt: x with y_ref in it, as in stage 1; so the KL is to the improver of stage 1 on the
same reference, which is what the run starts from. Samples: rollout.completions of each. Feedback: r_gap(x, y, y_ref).
Loss: P3O's, which sees differences of gaps alone; loss=rloo, grpo, reinforce or ppo take their trainer's update.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment.batching.groups import Unit
from alignment.batching.improvements import reference_units
from alignment.batching.steps import StepSampler
from alignment.batching.units import prompt_ids
from alignment.config import RunConfig
from alignment.data.templates import check_tokenizer
from alignment.data.views import ReferenceAnswer
from alignment.errors import UserError
from alignment.feedback.adapters import as_reward, inside
from alignment.feedback.gap import RewardGap
from alignment.feedback.protocols import Gap
from alignment.models.loading import load_model, load_tokenizer, resolve
from alignment.rollouts.experience import Experience
from alignment.rollouts.sampler import check_room
from alignment.trainers.curriculum import Curriculum
from alignment.trainers.inputs import Source, TrainingData, load_reference_answers
from alignment.trainers.map_units import sampled_answers
from alignment.trainers.online import OnlineTrainer
from alignment.trainers.p3o import P3OTrainer
from alignment.trainers.pit_sft import showing_of
from alignment.trainers.policy_gradient import PolicyGradientTrainer
from alignment.trainers.ppo import PPOTrainer

CURRICULUM = "curriculum.json"  # in a checkpoint


class PIT(OnlineTrainer):
    """What PIT samples and asks; the update is that of the other parent.

    Args: as of `OnlineTrainer`; `train` and `eval` may be lists of `ReferenceAnswer`. A feedback that is no gap becomes
        one, as the difference of its rewards.
    """

    held_out_kind = "reference answers"

    def __init__(self, model: Any = None, config: RunConfig | None = None, **rest: Any) -> None:
        super().__init__(model, config, **rest)
        settings, prompts = self.config.pit, self.config.rollout.prompts
        phases = math.ceil(self.planned_steps() / self.steps_per_phase)
        self.curriculum = Curriculum.of(settings, phases, len(self.train_units) / prompts)
        self.policy_path = settings.policy or self.config.model.path
        if settings.references != "data":  # before the first step: that it is there, not its weights
            if self.policy_path is None:
                raise UserError("pit.policy is needed: the model whose answers are improved in the second stage")
            resolve(self.policy_path)
        first = {json.dumps(record.prompt): record for record in reversed(self.data.records.values())}
        self.asked = list(reversed(first.values()))  # the prompts that the policy is asked, a record each
        self.answers: list[str] = []  # M_P's, once they were sampled
        self.policy_units: list[Unit] = []

    def choose_loss(self, config: RunConfig) -> None:
        super().choose_loss(config)
        self.showing = showing_of(config.pit)

    def load(self, train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
        """Held-out reference answers are improved at the end of the run; there are no held-out labels."""
        return replace(load_reference_answers(train, evaluation, tokenizer, config, self.showing), evaluation=[])

    def as_wanted(self, feedback: Any) -> Any:
        """A reward over the reference that the context of a row names."""
        is_gap = any(isinstance(part, Gap) for part in inside(feedback))
        return as_reward(feedback) if is_gap else RewardGap(feedback)

    def units_of(self, phase: int) -> list[Unit]:
        """The reference answers of a phase: the data's (eq. 4), or the policy's (eq. 5)."""
        is_policys, number = self.curriculum.turn(phase)
        if not is_policys:
            return [self.train_units[index] for index in self.phases.step(number)]
        if not self.policy_units:
            self.take(self.sample_policy())
        sampler = StepSampler(len(self.policy_units), self.config.rollout.prompts, 0, self.config.seed)
        return [self.policy_units[index] for index in sampler.step(number)]

    def judge(self, experience: Sequence[Experience]) -> list[Experience]:
        judged = super().judge(experience)
        gaps = [gap for unit in judged for gap in unit.rewards if math.isfinite(gap)]
        self.curriculum.note(self.state.global_step // self.steps_per_phase, statistics.fmean(gaps or [-math.inf]))
        return judged

    def _report(self, sampled: Sequence[Experience]) -> None:
        super()._report(sampled)
        self.phase_metrics["policy_references"] = float(self.curriculum.turn(self.phase)[0])

    # -- the policy's answers ------------------------------------------------------------------------------------------

    def sample_policy(self) -> list[str]:
        """One answer of M_P to each training prompt; every process samples a share."""
        settings = replace(self.config.model, path=self.policy_path)
        if self.config.pit.policy:
            settings.revision = None  # it is of model.path
        tokenizer = load_tokenizer(settings)
        check_tokenizer(tokenizer, self.config.data.template)
        policy: Any = load_model(settings)
        policy = policy.to(self.args.device).eval()
        ids = prompt_ids([self.showing.template.asked(r.prompt) for r in self.asked], tokenizer, self.config.data)
        check_room(policy, ids, self.sampling.max_new_tokens)
        found = sampled_answers(
            self,
            policy,
            tokenizer,
            ids,
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            batch_size=self.sampling.batch_size,
            seed=self.config.seed,
        )
        return [answer.text for (answer,) in found]

    def take(self, answers: list[str]) -> None:
        """Make units of the policy's answers, one to each of `asked`; an empty one is left out, and counted."""
        records = [
            ReferenceAnswer(f"{record.id}:policy", record.prompt, _turn(text), "policy", record.known)
            for record, text in zip(self.asked, answers, strict=True)
            if text.strip()
        ]
        if not records:
            raise UserError(f"pit.policy={self.policy_path} gave empty answers alone: there is nothing to improve")
        self.answers = answers
        self.policy_units, counts = reference_units(records, self.tokenizer, self.config.data, self.showing)
        check_room(self.model, [unit.groups[0].prompt for unit in self.policy_units], self.sampling.max_new_tokens)
        self.data.records |= {record.id: record for record in records}
        empty = len(answers) - len(records)
        self.data.counts["policy"] = counts.as_dict() | ({"left_out_empty reference": empty} if empty else {})

    def save_method_state(self, folder: Path) -> None:
        super().save_method_state(folder)
        if self.is_world_process_zero():
            state = {"gaps": self.curriculum.gaps, "answers": self.answers}
            (folder / CURRICULUM).write_text(json.dumps(state))

    def load_method_state(self, folder: Path) -> None:
        super().load_method_state(folder)
        state = json.loads((folder / CURRICULUM).read_text())
        self.curriculum.gaps = state["gaps"]
        if state["answers"]:
            self.take(state["answers"])


class PITTrainer(PIT, P3OTrainer):
    """Train an improver with P3O on the gap. Args: as of `PIT`."""

    method = "pit"


class PITPolicyGradientTrainer(PIT, PolicyGradientTrainer):
    """The same with RLOO, GRPO or REINFORCE."""

    method = "pit"


class PITPPOTrainer(PIT, PPOTrainer):
    """The same with PPO."""

    method = "pit"


UPDATES: dict[str, type[PIT]] = {
    "p3o": PITTrainer,
    **dict.fromkeys(("rloo", "grpo", "reinforce"), PITPolicyGradientTrainer),
    "ppo": PITPPOTrainer,
}


def pit_trainer(model: Any = None, config: RunConfig | None = None, **rest: Any) -> PIT:
    """The trainer of `config.loss`. Args: as of `PIT`. UserError: a loss that PIT is not trained with."""
    name = "p3o" if config is None else str(config.loss.get("name", "p3o"))
    if name not in UPDATES:
        raise UserError(f"loss.name={name}: recipe=pit is trained with loss={', '.join(UPDATES)}")
    return UPDATES[name](model, config, **rest)


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
