"""Answers that are to be improved -> units of token ids: the prompt of the improver holds the reference answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.batching.groups import Unit
from alignment.batching.units import TokenCounts, demonstration_units, prompt_units
from alignment.config import DataConfig
from alignment.data.example import Message
from alignment.data.improvement_prompts import ImprovementTemplate
from alignment.data.views import Demonstration, Improvement, Prompt, ReferenceAnswer


@dataclass(frozen=True)
class Showing:
    """How a reference answer stands in the improver's prompt."""

    template: ImprovementTemplate
    max_length: int  # tokens of a reference answer; a longer one loses its end, and is marked

    def prompt(self, answer: ReferenceAnswer, tokenizer: Any) -> tuple[list[Message], bool]:
        """(the prompt as the improver is asked, whether the reference answer was cut)."""
        text, cut = self.template.quoted(answer.text, tokenizer, self.max_length)
        return self.template.to_improve(answer.prompt, text), cut


def improvement_units(
    records: Sequence[Improvement], tokenizer: Any, data: DataConfig, showing: Showing
) -> tuple[list[Unit], TokenCounts]:
    """One unit an improvement: the prompt with the reference answer in it, and the better answer as its completion.

    data.max_prompt_length is of the whole prompt. References of several turns are left out and counted.

    Raises:
        UserError: as `pair_units`.
    """
    asked, left_out, cut = _asked([record.answers()[0] for record in records], tokenizer, showing)
    wanted = [
        Demonstration(record.id, prompt, record.better)
        for record, prompt in zip(records, asked, strict=True)
        if prompt is not None
    ]
    units, counts = demonstration_units(wanted, tokenizer, data)
    return units, _with(counts, left_out, cut)


def reference_units(
    records: Sequence[ReferenceAnswer], tokenizer: Any, data: DataConfig, showing: Showing
) -> tuple[list[Unit], TokenCounts]:
    """One unit a reference answer: the prompt that holds it, its completion still to be sampled. As above otherwise."""
    asked, left_out, cut = _asked(records, tokenizer, showing)
    wanted = [Prompt(record.id, prompt) for record, prompt in zip(records, asked, strict=True) if prompt is not None]
    units, counts = prompt_units(wanted, tokenizer, data)
    return units, _with(counts, left_out, cut)


def _asked(
    answers: Sequence[ReferenceAnswer], tokenizer: Any, showing: Showing
) -> tuple[list[list[Message] | None], list[str], int]:
    """(what the improver is asked, or None; ids of the answers left out; how many were cut)."""
    found: list[list[Message] | None] = []
    left_out, cut = [], 0
    for answer in answers:
        if any(message["role"] == "user" for message in answer.answer):
            left_out.append(answer.id)
            found.append(None)
            continue
        prompt, was_cut = showing.prompt(answer, tokenizer)
        found.append(prompt)
        cut += was_cut
    return found, left_out, cut


def _with(counts: TokenCounts, left_out: list[str], cut: int) -> TokenCounts:
    counts.turns_in_answer += left_out
    counts.references_cut = cut
    return counts
