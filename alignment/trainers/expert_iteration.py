"""Expert iteration: imitate the best of n of one's own samples, again and again (as in AlpacaFarm, 2305.14387).

View: prompts. Samples: rollout.completions of each prompt. Feedback: a reward of each; the best one is kept. Loss:
`nll` in losses/likelihood.py, as in recipe=sft.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.losses.likelihood import nll
from alignment.losses.record import LossOutput
from alignment.models.logps import sum_by_completion, token_logps
from alignment.rollouts.experience import Experience, rewards_of, token_values
from alignment.trainers.loss_settings import build_sft_loss
from alignment.trainers.online import OnlineTrainer
from alignment.trainers.sft import mean_length


class ExpertIterationTrainer(OnlineTrainer):
    """Train a policy on the best of its own samples. Args: as of `OnlineTrainer`."""

    method, default_loss = "expert_iteration", "nll"
    completions = 1  # of a unit: the best
    kl_setting = None

    def choose_loss(self, config: RunConfig) -> None:
        self.mean = build_sft_loss(config.loss)

    def judge(self, experience: Sequence[Experience]) -> list[Experience]:
        """The best of each prompt's completions."""
        judged = super().judge(experience)
        return [unit.only([best(unit.rewards)]) for unit in judged]

    def step_statistics(self, model: nn.Module, units: Sequence[Any], training: bool) -> Tensor | None:
        return mean_length(self, units) if self.mean == "token" else None

    def compute(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> LossOutput:
        """-log pi of each prompt's best completion."""
        policy = sum_by_completion(token_logps(model, batch, self.sampling.temperature), batch)
        output = nll(policy, batch.lengths, self.statistic)
        reference = sum_by_completion(token_values(units, "reference", policy.device), batch)
        rewards = rewards_of(units, torch.device(policy.device))[:, 0]
        return LossOutput(output.values, {**output.metrics, "reward": rewards, "kl": (policy - reference).detach()})


def best(rewards: Sequence[float]) -> int:
    """The place of the highest reward; no verdict is the lowest."""
    known = [reward if math.isfinite(reward) else -math.inf for reward in rewards]
    return known.index(max(known))
