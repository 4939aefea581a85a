"""What a run on written judgments did to held-out answers that were judged: part of its end-of-run table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from alignment.batching.groups import Group, Unit
from alignment.batching.judged import answer_text, span_of_tokens, without_end, wrong_span
from alignment.batching.packing import Batch
from alignment.batching.units import TokenCounts, encode_group, prompt_ids
from alignment.data.example import Message
from alignment.data.views import Judged
from alignment.evaluation.end_of_run import Answers, EndOfRun, digest_of
from alignment.evaluation.highlight import highlight, read_highlights, write_highlights
from alignment.evaluation.statistics import clustered_interval, paired_difference
from alignment.losses.cut import DEFAULT_MARGIN
from alignment.models.logps import token_logps
from alignment.trainers.judged_detection import detect
from alignment.trainers.map_units import token_rows
from alignment.trainers.same_run import digests

Measured = dict[str, list[float]]  # one number a held-out answer, NaN where it has none
HIGHLIGHTED = 20  # training answers that the report shows with what the untrained model detects in them


@dataclass(frozen=True)
class HeldOut:
    """A judged answer, under the prompt as the policy is asked, beside the right one where that is known."""

    record: Judged
    unit: Unit
    wrong: tuple[int, int] | None  # tokens of the answer that are known to be wrong: first, and behind the last


class JudgedEndOfRun(EndOfRun):
    """The usual table, and of held-out judged answers their log-probs under the prompt as it is asked.

    Examples may carry meta.wrong, the [start, end) characters of an answer that are wrong, and meta.right, the text of
    the right answer.

    Args:
        trainer: a CUTTrainer.
    """

    def __init__(self, trainer: Any, prompts: Sequence[list[Message]]) -> None:
        super().__init__(trainer, prompts)
        self.held_out = [found for record in trainer.data.held_out if (found := _held_out(record, trainer))]
        self.question = digest_of(self.question, digests([each.unit for each in self.held_out]))
        self.asks += f", scoring {len(self.held_out)} held-out answers"

    def encode(self) -> list[list[int]]:
        asked = [self.trainer.asked(prompt) for prompt in self.prompts]
        return prompt_ids(asked, self.trainer.tokenizer, self.trainer.config.data)

    def ask(self) -> Answers:
        if not self.trainer.state.global_step:
            self.highlight()
        answers = super().ask()

        def logps(model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
            return token_logps(model, batch)

        rows = token_rows(self.trainer, [each.unit for each in self.held_out], logps)
        answers.measured = measured(self.held_out, rows)
        return answers

    def highlight(self) -> None:
        """Write which tokens of some training answers CUT detects before it has trained anything, for the report."""
        trainer = self.trainer
        if trainer.config.loss.get("name", "cut") != "cut" or not trainer.is_world_process_zero():
            return
        if read_highlights(trainer.folder):  # a resumed run has them
            return
        bad = [record for record in trainer.data.records.values() if not record.satisfactory][:HIGHLIGHTED]
        policy = trainer.accelerator.unwrap_model(trainer.model)
        found = detect(policy, trainer.tokenizer, bad, trainer.config)
        margin = float(trainer.config.loss.get("margin", DEFAULT_MARGIN))
        write_highlights(trainer.folder, highlight(found, trainer.tokenizer, margin))

    def table(self, before: Answers, after: Answers) -> dict[str, Any]:
        prompts = [repr(each.record.prompt) for each in self.held_out]
        return {**super().table(before, after), "judged": changes(before.measured, after.measured, prompts)}


def _held_out(record: Judged, trainer: Any) -> HeldOut | None:
    """None where the prompt is too long."""
    tokenizer, data = trainer.tokenizer, trainer.config.data
    span, right = wrong_span(record), record.meta.get("right")
    answers = [record.completion]
    if isinstance(right, str) and right.strip() and not record.satisfactory:
        answers.append([{"role": "assistant", "content": right}])
    group = encode_group(record.id, trainer.asked(record.prompt), answers, tokenizer, data, TokenCounts("answers"))
    if group is None:
        return None
    if record.cut:
        own = without_end(tokenizer, group.completions[0])
        group = Group(group.prompt, (own, *group.completions[1:]))
    wrong = None
    if span is not None and not record.satisfactory:
        wrong = span_of_tokens(tokenizer, group.completions[0], answer_text(record), *span)
    return HeldOut(record, Unit(record.id, (group,)), wrong)


def measured(held_out: Sequence[HeldOut], rows: Sequence[tuple[tuple[float, ...], ...]]) -> Measured:
    """Nats per token of each answer by its kind, of its wrong tokens and of the right answer; nats that it is ahead by.

    Args:
        rows: log-probs of the tokens of each answer, and of the right one behind it.
    """
    found: Measured = {name: [] for name in ("satisfactory", "unsatisfactory", "wrong", "right", "right_ahead")}
    for each, (answer, *others) in zip(held_out, rows, strict=True):
        good = each.record.satisfactory
        found["satisfactory"].append(_mean(answer) if good else math.nan)
        found["unsatisfactory"].append(math.nan if good else _mean(answer))
        found["wrong"].append(_mean(answer[slice(*each.wrong)]) if each.wrong else math.nan)
        found["right"].append(_mean(others[0]) if others else math.nan)
        found["right_ahead"].append(sum(others[0]) - sum(answer) if others else math.nan)
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def changes(before: Measured, after: Measured, prompts: Sequence[str]) -> dict[str, Any]:
    """The `judged` entry of summary.json: {name: {before, after, difference, ci95, answers}}.

    Differences are paired by answer. `margin` is the mean of the satisfactory answers minus that of the others, and its
    interval comes from resampling prompts. `right_first` is the share of wrong answers that the right one is ahead of.
    """
    found: dict[str, Any] = {}
    for name in ("satisfactory", "unsatisfactory", "wrong", "right"):
        found[name] = _entry(before[name], after[name])
    ahead = [
        [float(nats > 0) if math.isfinite(nats) else math.nan for nats in side["right_ahead"]]
        for side in (before, after)
    ]
    found["right_first"] = _entry(*ahead)
    found["margin"] = _margin(before, after, prompts)
    return {name: entry for name, entry in found.items() if entry}


def _entry(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    difference = paired_difference(before, after)
    if not difference.n:
        return {}
    entry = difference.to_summary("")
    return {"answers": entry["prompts"]} | {
        key: entry[key] for key in entry if key not in ("name", "prompts", "dropped")
    }


def _margin(before: Measured, after: Measured, prompts: Sequence[str]) -> dict[str, Any]:
    """Two kinds of answers, to prompts of their own or to the same ones: whole prompts are resampled."""

    def rows(values: Measured) -> np.ndarray:
        both = np.array([values["satisfactory"], values["unsatisfactory"]], dtype=float).T
        known = np.isfinite(both)
        return np.hstack([np.where(known, both, 0.0), known])

    def margin(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums[..., 0] / sums[..., 2] - sums[..., 1] / sums[..., 3]

    old, new = rows(before), rows(after)
    counts = new[:, 2:].sum(0)
    if not counts.all():
        return {}
    change = np.hstack([new[:, :2] - old[:, :2], new[:, 2:]])
    entry = {"answers": len(new), "before": float(margin(old.sum(0))), "after": float(margin(new.sum(0)))}
    entry["difference"] = entry["after"] - entry["before"]
    ends = clustered_interval(change, np.array(prompts), margin)
    return entry | ({"ci95": list(ends)} if math.isfinite(ends[0]) else {})
