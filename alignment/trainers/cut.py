"""Learning from written judgments: CUT (Xu et al., 2312.14591), and what it is compared with.

View: judged (prompt, answer, judgment, satisfactory or not). Groups: the plain prompt with the answer; of an
unsatisfactory answer also the prompt with its judgment; aside, the prompt with a fake positive judgment, which is
scored without gradient, since only the detection of bad tokens reads it. Models: the policy alone. Loss: losses/cut.py.

Baselines on the same data are losses of this trainer: mle (imitate satisfactory answers), hindsight (also bad ones,
given their judgment), conditional (both kinds given a judgment, and asked with the positive one), forward_prediction
(imitate the answer and the judgment behind it), and unlikelihood (of whole unsatisfactory answers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.judged import Form
from alignment.batching.packing import Batch, pack
from alignment.config import RunConfig
from alignment.data.example import Message
from alignment.data.judgment_prompts import JudgmentTemplate, load_judgment_template
from alignment.losses.cut import JudgedLogps
from alignment.losses.record import LossOutput
from alignment.models.logps import token_logps
from alignment.trainers.inputs import Source, TrainingData, load_judged
from alignment.trainers.loss_settings import build_judged_loss
from alignment.trainers.policy import PolicyTrainer


class CUTTrainer(PolicyTrainer):
    """Train a policy on judged answers.

    Args: as of `PolicyTrainer`; `train` and `eval` may be lists of `Judged`.
    """

    method, default_loss = "cut", "cut"
    held_out_kind = "answers"
    needs_reference = False
    filler_completions = 1

    def choose_loss(self, config: RunConfig) -> None:
        self.loss, self.form = build_judged_loss(config.loss)
        self.template = load_judgment_template(config.judged.template)

    def load(self, train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
        return load_judged(train, evaluation, tokenizer, config, self.template, self.form)

    def asked(self, prompt: list[Message]) -> list[Message]:
        """A prompt as the policy is asked at inference: plain, or where it learnt to be told, with praise."""
        return as_asked(self.template, self.form, prompt)

    def step_statistics(self, model: nn.Module, units: Sequence[Unit], training: bool) -> Tensor | None:
        """(2,) for loss.variant=authors_code: tokens of both streams an example of the step; the token ids say it."""
        if self.config.loss.get("variant") != "authors_code":
            return None
        lengths = [len(unit.groups[0].completions[0]) for unit in units]
        second = [length for length, unit in zip(lengths, units, strict=True) if not satisfactory(unit)]
        total = torch.tensor([sum(lengths), sum(second), len(units)], dtype=torch.float32, device=self.args.device)
        total = self.accelerator.reduce(total, "sum")
        examples = total[2].clamp(min=1)
        return torch.stack([total[0].clamp(min=1), total[1]]) / examples

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """log p of each answer's tokens, plain and given its judgment; given praise, without gradient; the loss."""
        tokens = token_logps(model, batch)
        praised = self.praised(model, units) if self.form == "cut" else tokens[:0].detach()
        return self.loss(judged_logps(units, tokens, praised), self.statistic)

    def praised(self, model: nn.Module, units: Sequence[Unit]) -> Tensor:
        """(tokens of the unsatisfactory answers,) log p given a fake positive judgment, without gradient."""
        # Where there is none the pass is made all the same: sharded models hang unless all ranks run equally many.
        aside = [group for unit in units for group in unit.aside] or self.filler.aside
        with torch.no_grad():
            return token_logps(model, pack(aside, self.layout, self.pad_id).to(self.args.device))


def as_asked(template: JudgmentTemplate, form: Form, prompt: list[Message]) -> list[Message]:
    """A prompt as a policy that is trained on units of this form is asked."""
    return template.with_judgment(prompt, template.positive) if form == "conditional" else template.asked(prompt)


def satisfactory(unit: Unit) -> bool:
    return unit.values.get("satisfactory", 1.0) > 0


def judged_logps(units: Sequence[Unit], tokens: Tensor, praised: Tensor) -> JudgedLogps:
    """The record of a micro-batch, answer by answer.

    Args:
        tokens: log-probs of all tokens of the units' groups, in order.
        praised: the same of what is aside; empty where detection compares with the plain prompt.
    """
    plain: list[int] = []
    judged: list[int] = []
    contrast: list[int] = []
    owners: list[int] = []
    at, beside = 0, len(tokens)
    for number, unit in enumerate(units):
        length, groups = len(unit.groups[0].completions[0]), len(unit.groups)
        places = [range(at + group * length, at + (group + 1) * length) for group in range(groups)]
        at += groups * length
        plain += places[0]
        judged += places[-1]
        owners += [number] * length
        if unit.aside and len(praised) and not satisfactory(unit):
            contrast += range(beside, beside + length)
            beside += length
        else:
            contrast += places[0]

    def taken(values: Tensor, places: list[int]) -> Tensor:
        return values[torch.tensor(places).to(values.device, non_blocking=True)]

    return JudgedLogps(
        plain=taken(tokens, plain),
        judged=taken(tokens, judged),
        contrast=taken(torch.cat([tokens.detach(), praised]), contrast),
        owners=torch.tensor(owners).to(tokens.device, non_blocking=True),
        satisfactory=torch.tensor([satisfactory(unit) for unit in units]).to(tokens.device, non_blocking=True),
    )
