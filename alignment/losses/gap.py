"""The loss of PIT's gap reward model (2310.00898, sec. 3.2, as METHODS has it): five ordered pairs of four scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.losses.record import LossOutput, soft

ORDERINGS = ("wl", "ww", "ll", "lw")
# What is to be higher than what: a pair of scores each, the candidate's letter first (w: chosen, l: rejected).
TERMS = (("wl", "ww"), ("wl", "ll"), ("wl", "lw"), ("ww", "lw"), ("ll", "lw"))


@dataclass(frozen=True)
class GapScores:
    """r(x, candidate, reference) of B pairs in their four orderings; all (B,) float32, `wl` is r(x, y_w, y_l)."""

    wl: Tensor
    ww: Tensor
    ll: Tensor
    lw: Tensor
    p_chosen: Tensor  # probability that the chosen one is the better one; 1 for a plain label

    def flipped(self) -> GapScores:
        """The same pairs with chosen and rejected exchanged."""
        return GapScores(self.lw, self.ll, self.ww, self.wl, self.p_chosen)

    def over(self, term: tuple[str, str]) -> Tensor:
        """(B,) by how much the first score of a term is above the second."""
        return getattr(self, term[0]) - getattr(self, term[1])


def gap(scores: GapScores) -> LossOutput:
    """-log sigma of the five differences, summed: r^wl over r^ww, r^ll and r^lw, and r^ww and r^ll over r^lw.

    No term compares r^ww with r^ll, and none sets a zero. That it is a plain sum (not a mean) is second-hand; it scales
    the gradient and nothing else. An uncertain label weighs the pair and its flip, as in the losses on pairs: that is
    ours, the paper's labels are plain.
    """

    def value(one: GapScores) -> Tensor:
        return torch.stack([-F.logsigmoid(one.over(term)) for term in TERMS]).sum(0)

    differences = torch.stack([scores.over(term).detach() for term in TERMS])
    margin = scores.over(("wl", "lw")).detach()
    metrics = {
        "accuracy": (margin > 0).float() + 0.5 * (margin == 0).float(),
        "margin": margin,
        "ordered": (differences > 0).all(0).float(),
        "unequal_ties": scores.over(("ww", "ll")).detach().abs(),
    }
    return LossOutput(soft(value, scores), metrics)
