"""Supervised fine-tuning: imitate given answers. Where every pipeline starts.

View: demonstrations (prompt, answer); of pairs and ratings the best answer. Groups: one, the prompt with its answer.
Models: the policy alone. Loss: losses/likelihood.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.losses.likelihood import nll
from alignment.losses.record import LossOutput
from alignment.models.logps import sum_by_completion, token_logps
from alignment.trainers.inputs import load_demonstrations
from alignment.trainers.loss_settings import build_sft_loss
from alignment.trainers.policy import PolicyTrainer


class SFTTrainer(PolicyTrainer):
    """Train a policy on answers to imitate.

    Args: as of `PolicyTrainer`; `train` and `eval` may be lists of `Demonstration`.
    """

    method, default_loss = "sft", "nll"
    load = staticmethod(load_demonstrations)
    held_out_kind = "answers"
    needs_reference = False
    filler_completions = 1

    def choose_loss(self, config: RunConfig) -> None:
        self.mean = build_sft_loss(config.loss)

    def step_statistics(self, model: nn.Module, units: Sequence[Unit], training: bool) -> Tensor | None:
        return mean_length(self, units) if self.mean == "token" else None

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """-log pi of each answer."""
        return nll(sum_by_completion(token_logps(model, batch), batch), batch.lengths, self.statistic)

    def nats_per_token(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        """(len(units),) -log pi of each answer over its tokens."""
        return nll(sum_by_completion(token_logps(model, batch), batch), batch.lengths).values


def mean_length(trainer: Any, units: Sequence[Unit]) -> Tensor:
    """Mean tokens of an answer in the step, over all ranks; the token ids say it, no pass is needed."""
    lengths = [len(unit.groups[0].completions[0]) for unit in units]
    total = torch.tensor([sum(lengths), len(lengths)], dtype=torch.float32, device=trainer.args.device)
    total = trainer.accelerator.reduce(total, "sum")
    return total[0].clamp(min=1) / total[1].clamp(min=1)  # none at all: what fills up the step must not become NaN
