"""Nash-MD, Nash learning from human feedback by mirror descent (Munos et al., 2312.00886).

View: prompts. Samples: y from the policy, y' from the opponent: the geometric mixture of policy and reference
(rollout.mixture, the paper's beta; 0 is self-play, 1 the best response to the reference), or the mean of past policies
(rollout.opponent_decay, Nash-EMA). Feedback: P(y > y'), which need not be a difference of scores. Loss: `nash_md` in
losses/policy_gradient.py (eq. 13); only y is trained, and the KL, weighed by loss.tau, is to the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model as load_model_weights
from safetensors.torch import save_model
from torch import nn
from transformers import TrainerCallback

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.feedback.adapters import as_judge
from alignment.losses.record import LossOutput
from alignment.models.reference import MovingCopy
from alignment.rollouts.experience import Experience
from alignment.rollouts.sampler import MixtureSampler, PolicySampler
from alignment.trainers.loss_settings import build_policy_loss
from alignment.trainers.online import OnlineTrainer

OPPONENT = "opponent.safetensors"  # in a checkpoint, where the opponent is a mean of past policies


class NashMDTrainer(OnlineTrainer):
    """Train a policy towards the Nash equilibrium of a preference. Args: as of `OnlineTrainer`; a judge as feedback."""

    method, default_loss = "nash_md", "nash_md"
    kl_setting, default_kl = "tau", 0.008
    completions = 1  # the opponent's answer is not trained on

    def __init__(self, model: Any = None, config: RunConfig | None = None, **rest: Any) -> None:
        super().__init__(model, config, **rest)
        self.mean_policy: MovingCopy | None = None
        if self.config.rollout.opponent_decay is not None:
            policy = self.accelerator.unwrap_model(self.model)
            self.mean_policy = MovingCopy(policy, 1 - self.config.rollout.opponent_decay)
            self.add_callback(_FollowPolicy(self.mean_policy, policy))

    def choose_loss(self, config: RunConfig) -> None:
        self.loss = build_policy_loss(config.loss, ("nash_md",))
        if config.rollout.scale_rewards:
            raise UserError("rollout.scale_rewards: Nash-MD learns from probabilities, not rewards; leave it out")

    def as_wanted(self, feedback: Any) -> Any:
        return as_judge(feedback)

    def sample(self, units: Sequence[Unit], phase: int) -> list[Experience]:
        """y from the policy, and beside it the text of y' from the opponent."""
        prompts = [unit.groups[0].prompt for unit in units]
        own = self.sampler.sample(prompts, 1, self.seed_of(phase))
        other = self.opponent().sample(prompts, 1, self.seed_of(phase) + 2**32)  # other random numbers
        both = zip(units, own, other, strict=True)
        return [
            Experience(
                unit.id,
                Experience.of(unit.id, [mine]).groups,
                texts=(mine.text, theirs.text),
                finished=(mine.finished,),
            )
            for unit, mine, theirs in both
        ]

    def opponent(self) -> PolicySampler:
        """What y' is sampled from now."""
        if self.mean_policy is not None:
            return PolicySampler(self.mean_policy.model, self.tokenizer, self.sampling, self.accelerator)
        assert self.reference is not None
        return MixtureSampler(self.model, self.reference, self.tokenizer, self.sampling, self.mixture, self.accelerator)

    @property
    def mixture(self) -> float:
        """beta now; changed linearly over the run where rollout.mixture_end is given."""
        start, end = self.config.rollout.mixture, self.config.rollout.mixture_end
        return start if end is None else start + self.state.global_step / max(1, self.args.max_steps) * (end - start)

    def judge(self, experience: Sequence[Experience]) -> list[Experience]:
        """P(y > y') of each prompt, and as its reward the same less the penalty where y was cut."""
        records = [self.data.records[unit.id] for unit in experience]
        first, second = [unit.texts[0] for unit in experience], [unit.texts[1] for unit in experience]
        wins = self.feedback.prefer([r.prompt for r in records], first, second, [r.meta for r in records])
        return [self.with_penalty(unit.judged([win], win=win)) for unit, win in zip(experience, wins, strict=True)]

    def compute(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> LossOutput:
        """log pi and log mu of y's tokens, P(y > y'), and the loss (eq. 13)."""
        samples = self.samples(model, units, batch)
        output = self.loss(samples, samples.rewards[:, 0], tau=self.kl_coef)
        wins = torch.tensor([unit.values.get("win", 0.5) for unit in units], device=samples.rewards.device)
        return replace(output, metrics={**output.metrics, "win": wins})

    def save_method_state(self, folder: Path) -> None:
        super().save_method_state(folder)
        if self.mean_policy is not None and self.is_world_process_zero():
            save_model(self.mean_policy.model, str(folder / OPPONENT))

    def load_method_state(self, folder: Path) -> None:
        super().load_method_state(folder)
        if self.mean_policy is not None:
            load_model_weights(self.mean_policy.model, str(folder / OPPONENT))


class _FollowPolicy(TrainerCallback):
    """theta_bar <- decay theta_bar + (1 - decay) theta after each step."""

    def __init__(self, mean: MovingCopy, policy: Any) -> None:
        self.mean, self.policy = mean, policy

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with torch.no_grad():
            self.mean.follow(self.policy)
