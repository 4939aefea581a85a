"""Losses on a pair of completions that hold on to a reference policy.

All read the log-ratios u_w and u_l, u = log pi_theta(y | x) - log pi_ref(y | x) summed over the completion; rewards are
beta * u. Values are (B,). A label with p_chosen < 1 is the mixture of the loss of the pair and of the flipped pair
(`soft`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.losses.record import LossOutput, PairLogps, pair_metrics, soft

Length = Literal["mean", "sum"]


def sigmoid(pairs: PairLogps, beta: float = 0.1, label_smoothing: float = 0.0) -> LossOutput:
    """DPO, eq. 7 of Rafailov et al. (2305.18290): -log sigma(h), h = beta * (u_w - u_l).

    With label smoothing e it is conservative DPO: -(1 - e) log sigma(h) - e log sigma(-h), whose minimum is finite.

    Args:
        beta: strength of the hold on the reference, > 0.
        label_smoothing: assumed share of flipped labels, in [0, 0.5).
    """
    return _loss(pairs, beta, lambda pair: -F.logsigmoid(_h(pair, beta)), label_smoothing)


def robust(pairs: PairLogps, beta: float = 0.1, label_smoothing: float = 0.1) -> LossOutput:
    """Robust DPO, sec. 3.1 of Chowdhury et al. (2403.00409): the DPO loss of the true labels, without bias.

    [-(1 - e) log sigma(h) + e log sigma(-h)] / (1 - 2e), e the share of labels that noise has flipped. It may be
    negative, and has no lower bound.
    """
    # The same mixture as cDPO with other weights: (1 - e) / (1 - 2e) for the label, -e / (1 - 2e) for its flip.
    unbiased = -label_smoothing / (1 - 2 * label_smoothing)
    return _loss(pairs, beta, lambda pair: -F.logsigmoid(_h(pair, beta)), unbiased)


def hinge(pairs: PairLogps, beta: float = 0.1) -> LossOutput:
    """max(0, 1 - h), h = beta * (u_w - u_l): SLiC's loss (sec. 2 of 2305.10425) on ratios, as in RSO (2309.06657)."""
    return _loss(pairs, beta, lambda pair: F.relu(1 - _h(pair, beta)))


def ipo(pairs: PairLogps, beta: float = 0.1, *, length: Length) -> LossOutput:
    """IPO, eq. 17 of Azar et al. (2310.12036): ((u_w - u_l) - 1 / (2 beta))^2; beta is the paper's tau.

    Args:
        length: `mean` divides each log-ratio by its completion's tokens, which the authors later named as their
            setting; `sum` is the equation as printed. The target 1 / (2 beta) has the same units, so beta differs.
    """
    return _loss(pairs, beta, lambda pair: (_difference(pair, length) - 1 / (2 * beta)).square(), length=length)


def r_dpo(pairs: PairLogps, beta: float = 0.1, length_alpha: float = 0.05, label_smoothing: float = 0.0) -> LossOutput:
    """Length-controlled DPO (R-DPO), Park et al. (2403.19159): -log sigma(h + a * (|y_w| - |y_l|)).

    The plus sign makes the loss of a longer chosen answer small already, so that length is not what is learned. The
    flipped pair of `label_smoothing` carries -h and so -a * (|y_w| - |y_l|), too.

    Args:
        length_alpha: a, >= 0, per token.
    """

    def value(pair: PairLogps) -> Tensor:
        longer = pair.chosen_length - pair.rejected_length
        return -F.logsigmoid(_h(pair, beta) + length_alpha * longer)

    return _loss(pairs, beta, value, label_smoothing)


def sigmoid_norm(pairs: PairLogps, beta: float = 5.0, label_smoothing: float = 0.0) -> LossOutput:
    """Length-normalised DPO, sec. 5 of Lambert et al. (Tulu 3, 2411.15124).

    -log sigma(beta * (u_w / |y_w| - u_l / |y_l|)); beta is larger than DPO's by about the length of an answer.
    """

    def value(pair: PairLogps) -> Tensor:
        return -F.logsigmoid(beta * _difference(pair, "mean"))

    return _loss(pairs, beta, value, label_smoothing, length="mean")


def exo(pairs: PairLogps, beta: float = 0.1, label_smoothing: float = 1e-3) -> LossOutput:
    """EXO on pairs, eq. 16 of Ji et al. (2402.00856): KL(q || p), q = (sigma(h), sigma(-h)), p = (1 - e, e).

    Args:
        label_smoothing: e, in (0, 0.5): at 0 the divergence is infinite.
    """

    def value(pair: PairLogps) -> Tensor:
        h = _h(pair, beta)
        right = h.sigmoid() * (F.logsigmoid(h) - math.log1p(-label_smoothing))
        return right + (-h).sigmoid() * (F.logsigmoid(-h) - math.log(label_smoothing))

    return _loss(pairs, beta, value)


def nca(pairs: PairLogps, beta: float = 0.01) -> LossOutput:
    """NCA on pairs, sec. 4.1 of Chen et al. (2402.05369), with r = beta * u (beta is the paper's alpha).

    -log sigma(r_w) - log sigma(-r_w) / 2 - log sigma(-r_l) / 2: absolute rewards, so that the chosen one does not sink.
    """

    def value(pair: PairLogps) -> Tensor:
        chosen, rejected = beta * pair.chosen_ratio, beta * pair.rejected_ratio
        return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)

    return _loss(pairs, beta, value)


def bco_pair(pairs: PairLogps, beta: float = 0.1) -> LossOutput:
    """BCO on pairs, without a reward shift, sec. 4 of Jung et al. (2404.04656), with r = beta * u.

    -log sigma(r_w) - log sigma(-r_l).
    """

    def value(pair: PairLogps) -> Tensor:
        return -F.logsigmoid(beta * pair.chosen_ratio) - F.logsigmoid(-beta * pair.rejected_ratio)

    return _loss(pairs, beta, value)


def apo_zero(pairs: PairLogps, beta: float = 0.1) -> LossOutput:
    """APO-zero, eq. 7 of D'Oosterlinck et al. (2408.06266): 1 - sigma(r_w) + sigma(r_l), r = beta * u.

    For chosen answers better than what the policy writes: it raises them and lowers the rejected ones.
    """

    def value(pair: PairLogps) -> Tensor:
        return (-beta * pair.chosen_ratio).sigmoid() + (beta * pair.rejected_ratio).sigmoid()

    return _loss(pairs, beta, value)


def apo_down(pairs: PairLogps, beta: float = 0.1) -> LossOutput:
    """APO-down, eq. 8 of D'Oosterlinck et al. (2408.06266): sigma(r_w) + 1 - sigma(r_w - r_l), r = beta * u.

    For chosen answers worse than what the policy writes: it lowers both, the rejected one further.
    """
    return _loss(pairs, beta, lambda pair: (beta * pair.chosen_ratio).sigmoid() + (-_h(pair, beta)).sigmoid())


def sppo(pairs: PairLogps, beta: float = 0.001) -> LossOutput:
    """SPPO with win rates 1 and 0, eq. 4.7 of Wu et al. (2405.00675): (u_w - 1/(2 beta))^2 + (u_l + 1/(2 beta))^2.

    beta is 1 / eta. With a soft label this has the gradient of the paper's (u - eta (P - 1/2))^2, P = p_chosen.
    """
    target = 1 / (2 * beta)

    def value(pair: PairLogps) -> Tensor:
        return (pair.chosen_ratio - target).square() + (pair.rejected_ratio + target).square()

    return _loss(pairs, beta, value)


def discopop(pairs: PairLogps, beta: float = 0.05, tau: float = 0.05) -> LossOutput:
    """DiscoPOP, eq. 5 of Lu et al. (2406.08414): -(1 - m) log sigma(h) + m exp(-h), m = sigma(h / tau).

    Not monotone: at the paper's tau its slope at h = 0 is positive, so the first steps close the margin.

    Args:
        tau: width of the passage from the logistic to the exponential part, in (0, 1]: above 1 the loss explodes.
    """

    def value(pair: PairLogps) -> Tensor:
        h = _h(pair, beta)
        # m exp(-h) as one exponential: its parts overflow far below 0, their product does not.
        return -(-h / tau).sigmoid() * F.logsigmoid(h) + torch.exp(F.logsigmoid(h / tau) - h)

    return _loss(pairs, beta, value)


def _h(pair: PairLogps, beta: float) -> Tensor:
    """beta * (u_w - u_l)."""
    return beta * _difference(pair, "sum")


def _difference(pair: PairLogps, length: Length) -> Tensor:
    """u_w - u_l, in nats or in nats per token."""
    chosen, rejected = _ratios(pair, length)
    return chosen - rejected


def _ratios(pair: PairLogps, length: Length) -> tuple[Tensor, Tensor]:
    if length == "mean":
        return pair.chosen_ratio / pair.chosen_length, pair.rejected_ratio / pair.rejected_length
    return pair.chosen_ratio, pair.rejected_ratio


def _loss(
    pairs: PairLogps,
    beta: float,
    value: Callable[[PairLogps], Tensor],
    label_smoothing: float = 0.0,
    length: Length = "sum",
) -> LossOutput:
    """Values under soft labels, and the metrics of the rewards beta * u that the loss compares."""
    chosen, rejected = _ratios(pairs, length)
    return LossOutput(soft(value, pairs, label_smoothing), pair_metrics(beta * chosen, beta * rejected, pairs))
