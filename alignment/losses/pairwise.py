"""Losses on a pair of completions: pure functions from log-probs to per-example values and named metrics.

Nothing is reduced here; the trainer divides sums by the fixed number of examples of a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Summed completion log-probs of B pairs; all (B,) float32, in nats."""

    chosen: Tensor  # log pi_theta(y_w | x): carries the gradient, as does `rejected`
    rejected: Tensor
    ref_chosen: Tensor  # log pi_ref(y_w | x)
    ref_rejected: Tensor
    chosen_length: Tensor  # tokens
    rejected_length: Tensor
    p_chosen: Tensor  # probability that the chosen one is the better one; 1 for a plain label


@dataclass(frozen=True)
class LossOutput:
    """Per-example values (B,) with gradient, and per-example metrics (B,) without."""

    values: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


def sigmoid(pairs: PairLogps, beta: float = 0.1, label_smoothing: float = 0.0) -> LossOutput:
    """DPO, eq. 7 of Rafailov et al. (2305.18290), with soft labels and conservative label smoothing (cDPO).

    With h = beta * [(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))] and t the probability that the label
    is right, the value is -t log sigma(h) - (1 - t) log sigma(-h); `label_smoothing` blends p_chosen with its flip
    into t.

    Args:
        beta: strength of the hold on the reference, > 0.
        label_smoothing: assumed share of flipped labels, in [0, 0.5).
    """
    chosen_reward = beta * (pairs.chosen - pairs.ref_chosen)
    rejected_reward = beta * (pairs.rejected - pairs.ref_rejected)
    h = chosen_reward - rejected_reward
    right = pairs.p_chosen * (1 - label_smoothing) + (1 - pairs.p_chosen) * label_smoothing
    values = -right * F.logsigmoid(h) - (1 - right) * F.logsigmoid(-h)
    return LossOutput(values, pair_metrics(chosen_reward, rejected_reward, pairs))


def pair_metrics(chosen_reward: Tensor, rejected_reward: Tensor, pairs: PairLogps) -> dict[str, Tensor]:
    """What every pairwise loss reports: implicit rewards, their margin, and how often the chosen one is ahead."""
    margin = (chosen_reward - rejected_reward).detach()
    return {
        "accuracy": (margin > 0).float(),  # strict: at the start policy = reference, and nothing is ahead
        "margin": margin,
        "chosen_reward": chosen_reward.detach(),
        "rejected_reward": rejected_reward.detach(),
        "chosen_logp": pairs.chosen.detach() / pairs.chosen_length,
        "rejected_logp": pairs.rejected.detach() / pairs.rejected_length,
    }
