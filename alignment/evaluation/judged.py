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
from alignment.batching.stored import digests
from alignment.batching.units import TokenCounts, encode_group
from alignment.data.example import Example, Message
from alignment.data.judged_view import judged
from alignment.data.readers import load_examples
from alignment.data.views import Judged
from alignment.errors import UserError
from alignment.evaluation.end_of_run import Answers, EndOfRun, digest_of
from alignment.evaluation.highlight import highlight, read_highlights, write_highlights
from alignment.evaluation.statistics import clustered_interval, paired_difference
from alignment.feedback.adapters import Satisfied, label
from alignment.feedback.build import build_feedback
from alignment.feedback.label import context_of, identity_of
from alignment.feedback.protocols import Critic
from alignment.feedback.ranks import over_ranks
from alignment.losses.cut import DEFAULT_MARGIN
from alignment.models.logps import token_logps
from alignment.trainers.inputs import sampled
from alignment.trainers.judged_detection import detect
from alignment.trainers.map_units import token_rows

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
    the right answer. Where the run has a critic for its feedback, the table also has the share of fresh answers that it
    finds satisfactory.

    Args:
        trainer: a CUTTrainer, or any trainer of a policy.
        held_out: the judged answers; None: as `held_out_judgments` has them.
    """

    def __init__(
        self, trainer: Any, prompts: Sequence[list[Message]], held_out: Sequence[Judged] | None = None
    ) -> None:
        super().__init__(trainer, prompts)
        held_out = held_out_judgments(trainer) if held_out is None else held_out
        self.held_out = [found for record in held_out if (found := _held_out(record, trainer))]
        self.question = digest_of(self.question, digests([each.unit for each in self.held_out]))
        self.asks += f", scoring {len(self.held_out)} held-out answers"
        online = hasattr(trainer, "feedback")  # then it is a reward that was trained on, and has a row of its own
        critic = build_feedback(trainer.config.feedback) if trainer.config.feedback and not online else None
        self.satisfied: Any = None
        if isinstance(critic, Critic):
            self.satisfied, self.critic = over_ranks(Satisfied(critic)), label(critic)
            self.question = digest_of(self.question, identity_of(critic))
            meta = {repr(record.prompt): record.meta for record in held_out}
            known = [Example(prompt, meta=meta.get(repr(prompt), {})) for prompt in self.prompts]
            self.context = [context_of(example) for example in known]

    def encode(self, prompt: Any) -> list[int]:
        return super().encode(_asked(self.trainer, prompt))

    def ask(self) -> Answers:
        if not self.trainer.state.global_step:
            self.highlight()
        answers = super().ask()

        def logps(model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
            return token_logps(model, batch)

        rows = token_rows(self.trainer, [each.unit for each in self.held_out], logps)
        answers.measured = measured(self.held_out, rows)
        if self.satisfied:
            texts = [answer.text for answer in answers.answers]
            answers.measured["satisfied"] = self.satisfied.score(self.prompts, texts, self.context)
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
        entries = {**super().table(before, after), "judged": changes(before.measured, after.measured, prompts)}
        if self.satisfied:
            difference = paired_difference(before.measured["satisfied"], after.measured["satisfied"])
            entries["satisfied"] = difference.to_summary(self.critic)
        return entries


def held_out_judgments(trainer: Any) -> list[Judged]:
    """The judged answers of evaluation.judged; where that is null, those that the trainer itself holds out."""
    config = trainer.config
    source = config.evaluation.judged
    if source is None:
        return [record for record in trainer.data.held_out if isinstance(record, Judged)]
    loaded = load_examples(source, split=config.data.eval_split, on_bad_row=config.data.on_bad_row, seed=config.seed)
    found, left_out = judged(loaded.examples, satisfied_from=config.judged.satisfied_from)
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise UserError(f"evaluation.judged={source}: no judged answer in it: {reasons}")
    return list(sampled(found, config.data.eval_limit, config.seed))


def _asked(trainer: Any, prompt: list[Message]) -> list[Message]:
    """The prompt as the policy is asked; of other trainers than CUT's, as it stands."""
    return trainer.asked(prompt) if hasattr(trainer, "asked") else prompt


def _held_out(record: Judged, trainer: Any) -> HeldOut | None:
    """None where the prompt is too long."""
    tokenizer, data = trainer.tokenizer, trainer.config.data
    span, right = wrong_span(record), record.meta.get("right")
    answers = [record.completion]
    if isinstance(right, str) and right.strip() and not record.satisfactory:
        answers.append([{"role": "assistant", "content": right}])
    group = encode_group(record.id, _asked(trainer, record.prompt), answers, tokenizer, data, TokenCounts("answers"))
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
