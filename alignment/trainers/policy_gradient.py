"""Policy gradients on sampled completions: RLOO, GRPO and REINFORCE, the baselines of P3O on the same loop.

View: prompts. Samples: rollout.completions of each prompt. Feedback: a reward of each. Loss: `rloo`, `grpo` or
`reinforce` in losses/policy_gradient.py.
"""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.losses.record import LossOutput
from alignment.trainers.loss_settings import build_policy_loss
from alignment.trainers.online import OnlineTrainer


class PolicyGradientTrainer(OnlineTrainer):
    """Train a policy with RLOO, GRPO or REINFORCE. Args: as of `OnlineTrainer`."""

    method, default_loss = "policy_gradient", "rloo"

    def choose_loss(self, config: RunConfig) -> None:
        self.loss = build_policy_loss(config.loss, ("rloo", "grpo", "reinforce"))
        self.default_kl = inspect.signature(self.loss).parameters["kl_coef"].default
        self.has_baseline = config.loss.get("name") == "reinforce"
        if config.rollout.completions < 2 and not self.has_baseline:
            raise UserError("rollout.completions=1: a completion's baseline is the others to its prompt; take 2")

    def compute(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> LossOutput:
        """log pi, log pi_old and log pi_ref of all completions, their rewards, and the loss."""
        samples = self.samples(model, units, batch)
        if not self.has_baseline:
            return self.loss(samples, kl_coef=self.kl_coef)
        # REINFORCE's baseline is the mean reward of the phase, the same on every rank.
        mean = statistics.fmean(reward for unit in self.experience for reward in unit.rewards)
        return self.loss(samples, torch.tensor(mean, device=samples.rewards.device), kl_coef=self.kl_coef)
