"""Losses on a pair of completions that need no reference policy: they read the policy's log-probs alone.

A label with p_chosen < 1 is the mixture of the loss of the pair and of the flipped pair (`soft`).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from alignment.losses.likelihood import log1mexp
from alignment.losses.record import LossOutput, PairLogps, pair_metrics, soft


def simpo(pairs: PairLogps, beta: float = 2.0, gamma: float = 1.0) -> LossOutput:
    """SimPO, eq. 6 of Meng et al. (2405.14734): -log sigma(beta * (a_w - a_l) - gamma), a the mean log-prob of a token.

    Args:
        beta: scale of the reward beta * a, > 0; 2.0 to 2.5 in the paper.
        gamma: target margin between the rewards, >= 0.
    """

    def value(pair: PairLogps) -> Tensor:
        return -F.logsigmoid(beta * (pair.mean_chosen - pair.mean_rejected) - gamma)

    metrics = pair_metrics(beta * pairs.mean_chosen, beta * pairs.mean_rejected, pairs)
    return LossOutput(soft(value, pairs), metrics)


def orpo(pairs: PairLogps, beta: float = 0.1) -> LossOutput:
    """ORPO, eq. 6 and 7 of Hong et al. (2403.07691): NLL(y_w) - beta * log sigma(log odds(y_w) - log odds(y_l)).

    odds = p / (1 - p), p = exp of the mean log-prob of a token (eq. 4); NLL the mean over the chosen completion's
    tokens. The mean log-prob is held below -1e-6 nats in 1 - p, so that values and gradients are finite.

    Args:
        beta: weight of the odds ratio (the paper's lambda), > 0.
    """

    def log_odds(mean: Tensor) -> Tensor:
        return mean - log1mexp(mean)

    def value(pair: PairLogps) -> Tensor:
        return -pair.mean_chosen - beta * F.logsigmoid(log_odds(pair.mean_chosen) - log_odds(pair.mean_rejected))

    metrics = pair_metrics(beta * pairs.mean_chosen, beta * pairs.mean_rejected, pairs)
    return LossOutput(soft(value, pairs), metrics)


def cpo(pairs: PairLogps, beta: float = 0.1, nll_weight: float = 1.0, label_smoothing: float = 0.0) -> LossOutput:
    """CPO, sec. 3 of Xu et al. (2401.08417): -log sigma(beta * (log pi(y_w) - log pi(y_l))) + nll_weight * NLL(y_w).

    NLL is the mean over the chosen completion's tokens.

    Args:
        nll_weight: weight of the behaviour-cloning term, >= 0; 1 in the paper.
    """

    def value(pair: PairLogps) -> Tensor:
        return -F.logsigmoid(beta * (pair.chosen - pair.rejected)) - nll_weight * pair.mean_chosen

    metrics = pair_metrics(beta * pairs.chosen, beta * pairs.rejected, pairs)
    return LossOutput(soft(value, pairs, label_smoothing), metrics)


def sft(pairs: PairLogps) -> LossOutput:
    """Mean negative log-prob per token of the chosen completion, in nats: a term that keeps it likely."""
    metrics = pair_metrics(pairs.mean_chosen, pairs.mean_rejected, pairs)
    return LossOutput(soft(lambda pair: -pair.mean_chosen, pairs), metrics)
