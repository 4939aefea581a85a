"""PPO (Schulman et al., 1707.06347) token by token, as language models are trained with it: the baseline of P3O.

View: prompts. Samples: rollout.completions of each prompt. Feedback: a reward of each. A token's reward is -kl_coef
times its log-ratio to the reference, and the last one's also the completion's reward; values are learned by a head on
the policy, advantages are generalised ones (lambda), and kl_coef follows a target where one is given. Loss: `ppo` in
losses/policy_gradient.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.losses.policy_gradient import advantages_and_returns
from alignment.losses.record import LossOutput
from alignment.models.logps import token_logps_and_values
from alignment.models.shards import gathered, whole
from alignment.models.value_head import add_value_head
from alignment.rollouts.experience import Experience, Rows, token_values
from alignment.trainers.loss_settings import build_ppo_loss
from alignment.trainers.map_units import token_rows
from alignment.trainers.online import OnlineTrainer

VALUE_HEAD = "value_head.pt"  # in a checkpoint
HORIZON = 10_000  # of the adaptive coefficient, in samples (Ziegler et al., 1909.08593, sec. 2.2)
CLIP = 0.2


class PPOTrainer(OnlineTrainer):
    """Train a policy with PPO. Args: as of `OnlineTrainer`."""

    method, default_loss = "ppo", "ppo"

    def extend(self, policy: Any) -> None:
        self.value_head = add_value_head(policy)

    def choose_loss(self, config: RunConfig) -> None:
        self.loss, self.settings = build_ppo_loss(config.loss)

    def prepare(self, experience: list[Experience]) -> list[Experience]:
        """Values, advantages and returns of every token; and the coefficient's step towards its target."""
        temperature = self.sampling.temperature
        values = token_rows(self, experience, lambda m, u, batch: token_logps_and_values(m, batch, temperature)[1])
        valued = [replace(unit, extra={"values": rows}) for unit, rows in zip(experience, values, strict=True)]
        prepared = [self._with_advantages(unit) for unit in valued]
        self._adapt(experience)
        return whitened(prepared) if self.settings["whiten"] else prepared

    def _with_advantages(self, unit: Experience) -> Experience:
        device = torch.device("cpu")
        old, reference, values = (token_values([unit], name, device) for name in ("old", "reference", "values"))
        lengths = [len(row) for row in unit.old]
        owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        rewards = -self.kl_coef * (old - reference)
        rewards[torch.tensor(lengths).cumsum(0) - 1] += torch.tensor(unit.rewards)
        found = advantages_and_returns(rewards, values, owners, smoothing=self.settings["smoothing"])
        split = {name: rows_of(each, lengths) for name, each in zip(("advantages", "returns"), found, strict=True)}
        return replace(unit, extra={**unit.extra, **split})

    def _adapt(self, experience: Sequence[Experience]) -> None:
        """kl_coef (1 + clip(KL / target - 1) samples / horizon)."""
        target = self.settings["kl_target"]
        if target is None:
            return
        kl = [sum(map(sum, unit.old)) - sum(map(sum, unit.reference)) for unit in experience]
        samples = len(kl) * self.completions
        error = min(max(sum(kl) / samples / target - 1, -CLIP), CLIP)
        self.guards.raised *= 1 + error * samples / HORIZON

    def compute(self, model: nn.Module, units: Sequence[Any], batch: Batch) -> LossOutput:
        """log pi and V of every token, and the loss on its advantage and its return (eq. 7, 9)."""
        device = batch.input_ids.device
        tokens, values = token_logps_and_values(model, batch, self.sampling.temperature)
        samples = self.samples_of(tokens, units, batch)
        advantages, returns, old = (token_values(units, name, device) for name in ("advantages", "returns", "values"))
        return self.loss(samples, advantages, returns, values, old)

    def save_method_state(self, folder: Path) -> None:
        super().save_method_state(folder)
        with gathered(self.value_head):
            head = {name: whole(weight).clone() for name, weight in self.value_head.state_dict().items()}
        if self.is_world_process_zero():
            torch.save(head, folder / VALUE_HEAD)

    def load_method_state(self, folder: Path) -> None:
        super().load_method_state(folder)
        self.value_head.load_state_dict(torch.load(folder / VALUE_HEAD, weights_only=True))


def rows_of(values: torch.Tensor, lengths: Sequence[int]) -> Rows:
    """(N,) cut into a row for each completion."""
    return tuple(tuple(row.tolist()) for row in values.split(list(lengths)))


def whitened(experience: list[Experience]) -> list[Experience]:
    """Advantages with mean 0 and standard deviation 1 over the tokens of the phase."""
    every = token_values(experience, "advantages", torch.device("cpu"))
    mean, spread = every.mean(), every.std(correction=0) + 1e-8  # defined for a single token, too

    def scaled(unit: Experience) -> Experience:
        rows = tuple(tuple(float((value - mean) / spread) for value in row) for row in unit.extra["advantages"])
        return replace(unit, extra={**unit.extra, "advantages": rows})

    return [scaled(unit) for unit in experience]
