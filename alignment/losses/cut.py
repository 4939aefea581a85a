"""Contrastive unlikelihood training (CUT, 2312.14591): what a judgment makes likelier in a bad answer is unlearnt.

The paper and its authors' code are different losses; `variant` says which. Detection of the bad tokens, and the weight
p^gamma of a detected one, carry no gradient. log(1 - p) comes from log p and is never the log of a clamped softmax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignment.losses.likelihood import log1mexp
from alignment.losses.record import LossOutput

Variant = Literal["paper", "authors_code", "authors_script"]
DEFAULT_MARGIN = 1.2  # lambda


@dataclass(frozen=True)
class JudgedLogps:
    """Log-probs of the tokens of B judged answers, N in all, in the order of answers and tokens; nats.

    A satisfactory answer is scored under its plain prompt alone, and has the same numbers in all three.
    """

    plain: Tensor  # (N,) log p(y_t | x, y_<t): carries the gradient
    judged: Tensor  # (N,) log p(y_t | x, j-, y_<t), with the judgment in the prompt: carries the gradient
    contrast: Tensor  # (N,) what detection compares `judged` with: log p(y_t | x, j+, y_<t), or `plain`
    owners: Tensor  # (N,) int64: which of the B answers a token belongs to, ascending
    satisfactory: Tensor  # (B,) bool

    def sums(self, tokens: Tensor) -> Tensor:
        """(B,): values of tokens (N,) summed over each answer."""
        return tokens.new_zeros(self.satisfactory.shape).index_add(0, self.owners, tokens)

    @property
    def lengths(self) -> Tensor:
        """(B,) tokens of each answer."""
        return self.sums(torch.ones_like(self.plain))

    @property
    def log_ratio(self) -> Tensor:
        """(N,) log p(y_t | x, j-) - log p(y_t | x, j+), without gradient: how much the judgment explains a token."""
        return (self.judged - self.contrast).detach()


def cut(
    logps: JudgedLogps,
    step: Tensor | None = None,
    variant: Variant = "paper",
    margin: float = DEFAULT_MARGIN,
    weight: float = 0.5,
    exponent: float | None = None,
) -> LossOutput:
    """CUT in its three readings. U is the set of detected tokens of the unsatisfactory answers, N the tokens of one.

    `paper` (sec. 3; j+ is a fake positive judgment): U = {t: p(y_t | x, j-) > margin * p(y_t | x, j+)}, and the values
    are L1 + L2 of each example by itself, so that they depend on no other example and no padding:
        satisfactory:    -1/N sum_t log p(y_t | x)
        unsatisfactory:  -1/N sum_t log p(y_t | x, j-)  -  1/N [sum_{t not in U} log p(y_t | x)
                         + sum_{t in U} weight * p(y_t | x, j-)^exponent * log(1 - p(y_t | x))]

    `authors_code` (github.com/wwxu21/CUT, modeling_llama_unlikelihood.py) has no j+ and no exponent, and DEPENDS ON THE
    BATCH, which is the whole optimizer step here: U = {t: p(y_t | x, j-) > margin * p(y_t | x)}; the two sums above
    become means over all tokens of the step's first stream (satisfactory answers under the plain prompt, others with
    their judgment) and of its second (unsatisfactory answers under the plain prompt), and a step with any
    unsatisfactory answer is halved. The code takes the weight of the batch's first one; there is one weight here.

    `authors_script` is the same as the authors' scripts run it, with a batch of one example: own means, and an
    unsatisfactory example is halved.

    Args:
        step: (2,) for authors_code: tokens of the first and of the second stream, each divided by the number of
            examples of the step. None for the others.
        margin: the paper's lambda, >= 1; larger detects fewer tokens, infinite none.
        weight: its alpha, >= 0, of a detected token; 0 leaves these tokens out.
        exponent: its gamma, >= 0, for `paper` alone; None stands for 1.
    """
    in_u = logps.log_ratio > math.log(margin)
    factor: float | Tensor = weight
    if variant == "paper":
        factor = weight * torch.exp((1.0 if exponent is None else exponent) * logps.judged.detach())
    own = logps.lengths
    likely = -logps.sums(logps.judged)
    unlikely = logps.sums(torch.where(in_u, -factor * log1mexp(logps.plain), -logps.plain))
    second = torch.where(logps.satisfactory, 0.0, unlikely)
    if variant == "paper":
        values = (likely + second) / own
    elif variant == "authors_script":
        values = (likely + second) / own * torch.where(logps.satisfactory, 1.0, 0.5)
    else:
        assert step is not None
        halved = torch.where(step[1] > 0, 0.5, 1.0)
        values = halved * (likely / step[0] + second / torch.where(step[1] > 0, step[1], 1.0))
    bad = {"detected": logps.sums(in_u.to(own.dtype)), "nll_with_judgment": likely, "unlikelihood": second}
    return _output(values, logps, {name: total / own for name, total in bad.items()})


def likelihood(logps: JudgedLogps, step: Tensor | None = None) -> LossOutput:
    """-1/N sum_t log p(y_t | x) of every answer, whatever its prompt holds: the baselines that imitate. B values."""
    values = -logps.sums(logps.plain) / logps.lengths
    counted = {"nll_satisfactory": logps.satisfactory, "nll_unsatisfactory": ~logps.satisfactory}
    return LossOutput(values, dict.fromkeys(counted, values.detach()), counted)


def unlikelihood(logps: JudgedLogps, step: Tensor | None = None, weight: float = 0.5) -> LossOutput:
    """The baseline without detection (Welleck et al., 1908.04319, on whole answers); B values, own means.

    satisfactory: -1/N sum_t log p(y_t | x); unsatisfactory: -weight/N sum_t log(1 - p(y_t | x)).
    """
    down = -weight * logps.sums(log1mexp(logps.plain))
    values = torch.where(logps.satisfactory, -logps.sums(logps.plain), down) / logps.lengths
    return _output(values, logps, {})


def _output(values: Tensor, logps: JudgedLogps, bad: dict[str, Tensor]) -> LossOutput:
    """With the metrics of both kinds of answers; `bad` (B,) are metrics of the unsatisfactory ones."""
    mean, good = logps.sums(logps.plain) / logps.lengths, logps.satisfactory
    metrics = {"logp_satisfactory": mean, "logp_unsatisfactory": mean, **bad}
    counted = {name: good if name == "logp_satisfactory" else ~good for name in metrics}
    return LossOutput(values, {name: metric.detach() for name, metric in metrics.items()}, counted)
