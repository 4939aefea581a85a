"""Likelihood and unlikelihood: the loss of supervised fine-tuning, and log(1 - p) for answers to be unlearnt."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignment.losses.record import LossOutput

CEILING = -1e-6  # nats: where p is all but 1, log(1 - p) and its gradient have no bound


def nll(logps: Tensor, lengths: Tensor, mean_length: Tensor | None = None) -> LossOutput:
    """-log pi(y | x), divided so that the mean over the examples of a step is one over its tokens or its sequences.

    Args:
        logps: (B,) summed log-probs, in nats.
        lengths: (B,) tokens of each answer.
        mean_length: () mean tokens of an answer in the whole optimizer step: every token of the step weighs the same.
            None divides each answer by its own length: every sequence weighs the same.
    """
    own = -logps / lengths
    values = own if mean_length is None else -logps / mean_length
    return LossOutput(values, {"nats_per_token": own.detach()})


def log1mexp(logp: Tensor) -> Tensor:
    """log(1 - p) from log p <= 0, any shape, without cancellation near p = 0 and near p = 1 (Mächler, 2012).

    Above `CEILING` log p is held there, without gradient: in float32 that is p = 1 to rounding.
    """
    held = logp.clamp(max=CEILING)
    near_one = held > -math.log(2)
    # The branch that is not taken must not overflow, or its gradient, times zero, is not a number.
    high, low = torch.where(near_one, held, -1.0), torch.where(near_one, -1.0, held)
    return torch.where(near_one, torch.log(-torch.expm1(high)), torch.log1p(-torch.exp(low)))
