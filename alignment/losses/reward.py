"""Losses of models that score answers: Bradley–Terry on the difference of two scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from alignment.losses.record import LossOutput


@dataclass(frozen=True)
class PairScores:
    """What a scoring model says of B pairs; all (B,) float32."""

    chosen: Tensor  # r(x, y_w): carries the gradient, as does `rejected`
    rejected: Tensor
    p_chosen: Tensor  # probability that the chosen one is the better one; 1 for a plain label
    margin: Tensor  # by how much it is better, in the unit of the data's scores; 0 where not known


def bradley_terry(
    pairs: PairScores, label_smoothing: float = 0.0, margin_weight: float = 0.0, centring: float = 0.0
) -> LossOutput:
    """-log sigma(r_w - r_l - c m), with soft labels and a pull of the scores towards mean zero.

    The loss of reward models (Christiano et al., 1706.03741; Ouyang et al., 2203.02155, eq. 1). m is the margin term of
    Llama 2 (2307.09288, eq. 2), `centring` the coefficient of (r_w + r_l)^2 (Eisenstein et al., 2312.09244, eq. 4):
    preferences leave a constant of the scores open, and this sets it to zero.

    Args:
        label_smoothing: assumed share of flipped labels, in [0, 0.5).
        margin_weight: c, >= 0; 0 leaves the margins out.
        centring: >= 0; 0.01 is the paper's.
    """
    right = pairs.p_chosen * (1 - label_smoothing) + (1 - pairs.p_chosen) * label_smoothing
    difference, margin = pairs.chosen - pairs.rejected, margin_weight * pairs.margin
    values = -right * F.logsigmoid(difference - margin) - (1 - right) * F.logsigmoid(-difference - margin)
    if centring:
        values = values + centring * (pairs.chosen + pairs.rejected).square()
    return LossOutput(
        values,
        {
            "accuracy": (difference.detach() > 0).float() + 0.5 * (difference.detach() == 0).float(),
            "margin": difference.detach(),
            "chosen_reward": pairs.chosen.detach(),
            "rejected_reward": pairs.rejected.detach(),
        },
    )
