"""What an improver makes of held-out reference answers: part of the end-of-run table of PIT's stages 1 and 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.data.example import Message
from alignment.data.views import Improvement, ReferenceAnswer
from alignment.evaluation.end_of_run import Answers, EndOfRun
from alignment.evaluation.statistics import Difference, paired_difference
from alignment.feedback.adapters import label


class ImprovedEndOfRun(EndOfRun):
    """The usual table over prompts that hold a held-out reference answer; and the answers against these.

    Both answers of each held-out pair are improved, the rejected one before the chosen one, the first
    `evaluation.prompts` of them.

    Args:
        trainer: an ImproverTrainer or a PIT trainer.
    """

    def __init__(self, trainer: Any, prompts: Sequence[list[Message]]) -> None:
        super().__init__(trainer, [answer for record in trainer.data.held_out for answer in _answers(record)])
        self.asks = f"improving {len(self.records)} held-out answers{self.longer_ones()}"

    def within_length(self, given: Sequence[ReferenceAnswer]) -> tuple[list[Any], list[list[int]], int]:
        self.records, ids, longer = super().within_length(given)
        return [record.prompt for record in self.records], ids, longer

    def encode(self, record: Any) -> list[int]:
        return super().encode(self.trainer.showing.prompt(record, self.trainer.tokenizer)[0])

    def table(self, before: Answers, after: Answers) -> dict[str, Any]:
        """The `improved` entry besides."""
        entries = super().table(before, after)
        if self.reward is not None:
            given = self.reward.score(self.prompts, [record.text for record in self.records])
            entries["improved"] = by_kind(self.records, given, self.scores(before), self.scores(after))
        return entries

    def _taught(self, before: Answers, after: Answers) -> dict[str, Any]:
        """Mean gap of the answers over their reference answers, as the run's feedback says: what PIT trains on."""
        feedback = getattr(self.trainer, "feedback", None)
        if feedback is None:
            return {}
        context = [record.meta for record in self.records]
        gaps = [feedback.score(self.prompts, [a.text for a in side.answers], context) for side in (before, after)]
        return paired_difference(*gaps).to_summary(label(feedback))

    def samples(self, before: Answers, after: Answers) -> list[dict[str, Any]]:
        rows = super().samples(before, after)
        for row, record in zip(rows, self.records, strict=True):
            row["prompt"] = f"{row['prompt']}\n\nTo improve: {record.text}"
        return rows


def _answers(record: Improvement | ReferenceAnswer) -> list[ReferenceAnswer]:
    return record.answers() if isinstance(record, Improvement) else [record]


def by_kind(
    records: Sequence[ReferenceAnswer], given: Sequence[float], before: Sequence[float], after: Sequence[float]
) -> dict[str, Any]:
    """The `improved` entry of summary.json: {kind: {"score": …, "won": …}} for rejected and chosen reference answers.

    `score` is from the reference answers themselves (before) to what the trained model makes of them (after). `won` is
    the share of them that were raised less the share that were lowered, by the model before training and after;
    `after_ci95` is of the latter alone. Rows without a score on either side are left out.
    """
    values = np.array([given, before, after], dtype=float)
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(record.kind for record in records):
        chosen = np.array([record.kind == kind for record in records])
        own, old, new = values[:, chosen]
        won = [np.sign(side - own) for side in (old, new)]
        entry = {"score": _entry(paired_difference(own, new)), "won": _entry(paired_difference(*won))}
        alone = paired_difference(np.zeros_like(won[1]), won[1])
        if math.isfinite(alone.low):
            entry["won"]["after_ci95"] = [alone.low, alone.high]
        found[kind] = entry
    return found


def _entry(difference: Difference) -> dict[str, Any]:
    entry = difference.to_summary("")
    return {"answers": entry["prompts"]} | {key: entry[key] for key in entry if key not in ("name", "prompts")}
