"""Three pairs with easy numbers, and the functions that arithmetic on paper needs."""

from __future__ import annotations

import math

import torch

from alignment.losses.record import PairLogps


def pairs(chosen, rejected, ref_chosen, ref_rejected, p=1.0, lengths=(4.0, 2.0), dtype=torch.float64) -> PairLogps:
    """B pairs in double precision; the policy's log-probs take a gradient."""

    def tensor(value):
        return torch.tensor(value, dtype=dtype)

    n = len(chosen)
    return PairLogps(
        tensor(chosen).requires_grad_(),
        tensor(rejected).requires_grad_(),
        tensor(ref_chosen),
        tensor(ref_rejected),
        tensor([lengths[0]] * n),
        tensor([lengths[1]] * n),
        tensor([p] * n),
    )


def three_rows(p: float = 1.0) -> PairLogps:
    """u_w = 2, 0, -2 and u_l = -5, 0, 2, so u_w - u_l = 7, 0, -4; the chosen answers have 4 tokens, the rejected 2.

    Log-probs per token: chosen -2.5, -1.25, -2.25; rejected -10, -2.5, -1.5.
    """
    return pairs([-10.0, -5.0, -9.0], [-20.0, -5.0, -3.0], [-12.0, -5.0, -7.0], [-15.0, -5.0, -5.0], p)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def nls(x: float) -> float:
    """-log sigma(x)."""
    return math.log1p(math.exp(-x))
