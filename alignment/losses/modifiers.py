"""What may be laid over any pairwise loss: another divergence, WPO's weights of pairs, LD-DPO's weights of tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.losses.record import PairLogps

DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")
MOST = 40.0  # the exponent's bound: exp(40) squared still is a float32; beyond it the score is flat, without gradient


def diverged(pairs: PairLogps, divergence: str, alpha: float = 0.5) -> PairLogps:
    """f-DPO, table 1 of Wang et al. (2309.16240): f'(exp u) in place of the log-ratio u, shifted to be 0 at u = 0.

    reverse_kl: u (DPO itself). forward_kl: 1 - exp(-u). js: log 2 + log sigma(u). alpha: (1 - exp(-a u)) / a, which
    passes from reverse KL (a -> 0) to forward KL (a = 1). The exponent is bounded by 40: forward_kl and alpha are flat
    below u = -40 / a.

    Args:
        alpha: a, in (0, 1); read by `alpha` alone.
    """
    if divergence == "reverse_kl":
        return pairs
    ratios = (pairs.chosen_ratio, pairs.rejected_ratio)
    if divergence == "js":
        chosen, rejected = (math.log(2) + F.logsigmoid(u) for u in ratios)
    else:
        a = 1.0 if divergence == "forward_kl" else alpha
        chosen, rejected = (-torch.expm1((-a * u).clamp(max=MOST)) / a for u in ratios)
    return replace(pairs, ratios=(chosen, rejected))


def wpo_weight(mean_alignment: Tensor) -> Tensor:
    """WPO's weight of a pair, eq. 2 of Zhou et al. (2406.11827): the product of its two answers' weights.

    An answer weighs exp(mean over its tokens of [log pi(y_t) - log sum_v pi(v)^2]): 1 where its tokens are as likely as
    the policy's own draws are on average. As in the equation the weight has no cap, and it exceeds 1 where they are
    likelier. No gradient flows through it.

    Args:
        mean_alignment: (2B,) that mean, chosen and rejected by turns.

    Returns:
        (B,)
    """
    return (mean_alignment[0::2] + mean_alignment[1::2]).detach().exp()


def ld_weights(lengths: Tensor, owners: Tensor, alpha: float) -> Tensor:
    """LD-DPO's token weights (Liu et al., 2409.06411): 1 up to the pair's shorter length, `alpha` beyond.

    The policy's and the reference's log-probs are both summed with them. alpha = 1 is DPO, 0 leaves the longer answer's
    rest out.

    Args:
        lengths: (2B,) tokens of each completion, chosen and rejected by turns.
        owners: (N,) which completion a token belongs to, ascending.
        alpha: in [0, 1].

    Returns:
        (N,) float32.
    """
    place = torch.arange(owners.numel(), device=owners.device) - (lengths.cumsum(0) - lengths)[owners]
    shorter = lengths.view(-1, 2).min(-1).values.repeat_interleave(2)
    return torch.where(place < shorter[owners], 1.0, alpha)
