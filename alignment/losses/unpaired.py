"""Losses on single answers with a thumbs up or down; what they need of the whole optimizer step is an argument."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.losses.record import LossOutput, UnpairedLogps


def kto(
    batch: UnpairedLogps,
    kl: Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> LossOutput:
    """KTO, sec. 4 of Ethayarajh et al. (2402.01306), with u = log pi/ref of an answer.

    Desirable: w_d * (1 - sigma(beta * (u - kl))); undesirable: w_u * (1 - sigma(beta * (kl - u))).

    Args:
        kl: () nats, the mean log-ratio of mismatched answers over the optimizer step and all ranks. Held at 0 or above,
            and without gradient.
        desirable_weight, undesirable_weight: the paper's lambda_D and lambda_U, > 0.
    """
    sign = _sign(batch)
    surplus = beta * (batch.ratio - kl.detach().clamp(min=0))
    weight = torch.where(batch.desirable, desirable_weight, undesirable_weight)
    return LossOutput(weight * (-sign * surplus).sigmoid(), _metrics(batch, beta, sign * surplus))


def bco(batch: UnpairedLogps, delta: Tensor, beta: float = 0.1) -> LossOutput:
    """BCO, sec. 4 of Jung et al. (2404.04656): -log sigma(r - delta) or, undesirable, -log sigma(-(r - delta)).

    Args:
        delta: () the reward shift: half the sum of the desirable and of the undesirable answers' mean reward
            r = beta * u. Without gradient.
    """
    surplus = _sign(batch) * (beta * batch.ratio - delta.detach())
    return LossOutput(-F.logsigmoid(surplus), _metrics(batch, beta, surplus))


def _sign(batch: UnpairedLogps) -> Tensor:
    return 2 * batch.desirable.to(batch.policy.dtype) - 1


def _metrics(batch: UnpairedLogps, beta: float, surplus: Tensor) -> dict[str, Tensor]:
    """`margin` is how far a reward is on the right side of the statistic; `accuracy` how often it is."""
    return {
        "accuracy": (surplus > 0).float().detach(),
        "margin": surplus.detach(),
        "reward": (beta * batch.ratio).detach(),
        "logp": (batch.policy / batch.length).detach(),
    }
