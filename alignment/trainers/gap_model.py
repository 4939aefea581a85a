"""PIT's gap reward model (2310.00898, sec. 3.2): how much better a candidate is than a reference, in one forward pass.

View: pairs. Groups: one, the prompt with `reference SEPARATOR candidate` in the four orderings wl, ww, ll and lw of the
pair (candidate first), which share the prompt. Model: a language model's body with a head of one score, read at the
candidate's last token. Loss: losses/gap.py, wl above ww and ll above lw. Unlike the difference of two rewards r(y) -
r(y_ref) it need not be 0 between equal answers, nor change its sign with the order. How the paper joins the texts is
not known: order and separator are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.batching.units import gap_units
from alignment.losses.gap import GapScores
from alignment.losses.record import LossOutput
from alignment.models.scores import completion_scores
from alignment.trainers.loss_settings import build_gap_loss
from alignment.trainers.reward import RewardTrainer


class GapTrainer(RewardTrainer):
    """Train a gap reward model on pairs. Args: as of `RewardTrainer`, without objectives."""

    kind, default_loss = "gap", "gap"
    to_units = staticmethod(gap_units)
    build_loss = staticmethod(build_gap_loss)
    filler_completions = 4

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """r of the four orderings of each pair, and the loss on their order."""
        wl, ww, ll, lw = self.gaps(model, units, batch).unbind(1)
        return self.loss(GapScores(wl, ww, ll, lw, self.values(units, "p_chosen", wl.device, 1.0)))

    def gaps(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        """(len(units), 4) r^wl, r^ww, r^ll and r^lw."""
        return completion_scores(model, batch).view(-1, 4)

    def logits(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        """(len(units),) log-odds that the chosen answer is the better one: r^wl - r^lw, one of the five terms."""
        scores = self.gaps(model, units, batch)
        return scores[:, 0] - scores[:, 3]
