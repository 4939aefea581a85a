"""Preference models: P(first ≻ second) from both answers in one context (Munos et al., 2312.00886, sec. 3.1).

View: pairs. Groups: one, the prompt with `first SEPARATOR second` and the other way round. Model: a language model's
body with a head of one score s. P(first ≻ second) = sigmoid((s(first, second) - s(second, first)) / 2): exactly
antisymmetric, since the orders are averaged in logit space, and, unlike a difference of two rewards, free to be
intransitive.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.batching.units import ordered_units
from alignment.losses.record import LossOutput
from alignment.losses.reward import PairScores
from alignment.models.scores import antisymmetric, completion_scores
from alignment.trainers.reward import RewardTrainer


class PreferenceModelTrainer(RewardTrainer):
    """Train a preference model on pairs. Args: as of `RewardTrainer`, without objectives."""

    kind = "preference"
    to_units = staticmethod(ordered_units)

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """The antisymmetric logit of each pair, and the loss on it."""
        logit = self.logits(model, units, batch)
        p_chosen = self.values(units, "p_chosen", logit.device, 1.0)
        margin = self.values(units, "margin", logit.device)
        # Half a logit each way: their difference is the logit, and their sum, which centring pulls to zero, is zero.
        return self.loss(PairScores(logit / 2, -logit / 2, p_chosen, margin))

    def logits(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        """(len(units),) log-odds that the chosen answer is the better one."""
        return antisymmetric(completion_scores(model, batch))
