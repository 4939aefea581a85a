"""P3O, pairwise proximal policy optimisation (Wu et al., 2310.00212).

View: prompts. Samples: two completions of each prompt from the policy. Feedback: a reward of each. Loss: `p3o` in
losses/policy_gradient.py, on the difference of the two rewards alone: a reward and the same reward plus any function of
the prompt train the same policy, which is not so of PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.losses.record import LossOutput
from alignment.trainers.loss_settings import build_policy_loss
from alignment.trainers.online import OnlineTrainer


class P3OTrainer(OnlineTrainer):
    """Train a policy with P3O. Args: as of `OnlineTrainer`."""

    method, default_loss = "p3o", "p3o"

    def choose_loss(self, config: RunConfig) -> None:
        self.loss = build_policy_loss(config.loss, ("p3o",))
        if config.rollout.completions != 2:
            raise UserError(f"rollout.completions={config.rollout.completions}: P3O compares two completions a prompt")

    def compute(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> LossOutput:
        """log pi, log pi_old and log pi_ref of both completions, their rewards, and the loss (sec. 4.2)."""
        return self.loss(self.samples(model, units, batch), kl_coef=self.kl_coef)
