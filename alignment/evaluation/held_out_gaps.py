"""The end-of-run table of a gap reward model: how far it orders the four orderings of held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.evaluation.held_out_pairs import HeldOutPairs, Verdicts
from alignment.evaluation.statistics import paired_difference, share_interval
from alignment.losses.gap import ORDERINGS, TERMS
from alignment.trainers.map_units import map_units


class HeldOutGaps(HeldOutPairs):
    """As of any model that ranks answers, by r^wl - r^lw; and each of the loss's five terms.

    Args:
        trainer: a GapTrainer.
    """

    def ask(self) -> Verdicts:
        trainer = self.trainer
        gaps = map_units(trainer, self.units, lambda *micro_batch: trainer.gaps(*micro_batch).tolist())
        return Verdicts([wl - lw for wl, _, _, lw in gaps], self.question, gaps)

    def table(self, before: Verdicts, after: Verdicts) -> dict[str, Any]:
        """The `gaps` entry besides."""
        return {**super().table(before, after), "gaps": changes(before.gaps, after.gaps)}


def changes(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The `gaps` entry of summary.json, from (pairs, 4) scores before training and after.

    Returns:
        {"wl > ww": {before, after, difference, ci95, after_ci95, pairs}, …}: for each term the share of pairs in that
        order, a tie counting one half; "all five": the share with no term out of order; "|ww - ll|": mean distance of
        the two scores of equal answers, in the model's unit, without after_ci95.
    """
    sides = [_values(gaps) for gaps in (before, after)]
    found: dict[str, Any] = {}
    for name in sides[0]:
        entry = paired_difference(sides[0][name], sides[1][name]).to_summary(name)
        entry["pairs"] = entry.pop("prompts")
        if name != EQUAL and entry["pairs"]:
            entry["after_ci95"] = list(share_interval(entry["after"], entry["pairs"]))
        found[name] = {key: value for key, value in entry.items() if key != "name"}
    return found


ALL, EQUAL = "all five", "|ww - ll|"


def _values(gaps: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    """(pairs,) each."""
    scores = dict(zip(ORDERINGS, np.asarray(gaps, dtype=float).reshape(-1, len(ORDERINGS)).T, strict=True))
    over = {f"{high} > {low}": scores[high] - scores[low] for high, low in TERMS}
    found = {name: (np.sign(difference) + 1) / 2 for name, difference in over.items()}
    found[ALL] = np.all([difference > 0 for difference in over.values()], axis=0).astype(float)
    found[EQUAL] = np.abs(scores["ww"] - scores["ll"])
    return found
