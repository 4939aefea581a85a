"""Online DPO: the direct losses on pairs that the policy samples and the feedback labels (Guo et al., 2402.04792).

View: prompts. Samples: rollout.completions of each prompt. Feedback: a reward of each; the best and the worst are the
pair, and a tie between them is dropped. Loss: any of losses/pairwise.py, such as loss=sigmoid (DPO) or loss=ipo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.losses.record import LossOutput, PairLogps
from alignment.models.logps import sum_by_completion, token_logps
from alignment.rollouts.experience import Experience, token_values
from alignment.trainers.loss_settings import build_loss
from alignment.trainers.online import OnlineTrainer


class OnlineDPOTrainer(OnlineTrainer):
    """Train a policy with a direct loss on its own samples. Args: as of `OnlineTrainer`."""

    method, default_loss = "online_dpo", "sigmoid"
    completions = 2  # of a unit: best and worst
    kl_setting = None
    no_verdict = "NaN or infinite scores, or all completions of a prompt have the same one"

    def choose_loss(self, config: RunConfig) -> None:
        self.loss = build_loss(config.loss)
        if config.rollout.completions < 2:
            raise UserError("rollout.completions=1: online DPO needs two or more to choose a pair from")
        if self.loss.weighting or self.loss.ld_alpha != 1:
            raise UserError("loss.weighting and loss.ld_alpha are for recipe=dpo: leave them out")

    def judge(self, experience: Sequence[Experience]) -> list[Experience]:
        """Best and worst of each prompt, in that order; NaN where they tie or one has no verdict."""
        return [best_and_worst(unit) for unit in super().judge(experience)]

    def compute(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> LossOutput:
        """log pi of both answers, log ref of both answers, and the loss on their differences."""
        device = batch.input_ids.device
        policy = sum_by_completion(token_logps(model, batch, self.sampling.temperature), batch)
        reference = sum_by_completion(token_values(units, "reference", device), batch)
        rewards = torch.tensor([unit.rewards for unit in units], device=device)
        lengths = batch.lengths.to(policy.dtype)
        output = self.loss(
            PairLogps.by_turns(policy, reference, lengths, p_chosen=torch.ones(len(units), device=device))
        )
        kl = (policy - reference).detach().view(-1, 2).mean(1)
        return replace(output, metrics={**output.metrics, "reward": rewards.mean(1), "kl": kl})


def best_and_worst(unit: Experience) -> Experience:
    """The completions with the highest and the lowest reward alone."""
    if not all(map(math.isfinite, unit.rewards)):
        return unit.only([0, 1]).judged([math.nan] * 2)
    order = sorted(range(len(unit.rewards)), key=lambda place: -unit.rewards[place])
    pair = unit.only([order[0], order[-1]])
    return pair.judged([math.nan] * 2) if pair.rewards[0] == pair.rewards[1] else pair
