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
    kept = [record for record in records if not _has_turns(record.reference)]
    asked, cut = _asked([record.answers()[0] for record in kept], tokenizer, showing)
    wanted = [Demonstration(record.id, prompt, record.better) for record, prompt in zip(kept, asked, strict=True)]
    units, counts = demonstration_units(wanted, tokenizer, data)
    counts.turns_in_answer += [record.id for record in records if _has_turns(record.reference)]
    counts.references_cut = cut
    return units, counts


def reference_units(
    records: Sequence[ReferenceAnswer], tokenizer: Any, data: DataConfig, showing: Showing
) -> tuple[list[Unit], TokenCounts]:
    """One unit a reference answer: the prompt that holds it, its completion still to be sampled. As above otherwise."""
    kept = [record for record in records if not _has_turns(record.answer)]
    asked, cut = _asked(kept, tokenizer, showing)
    wanted = [Prompt(record.id, prompt) for record, prompt in zip(kept, asked, strict=True)]
    units, counts = prompt_units(wanted, tokenizer, data)
    counts.turns_in_answer += [record.id for record in records if _has_turns(record.answer)]
    counts.references_cut = cut
    return units, counts


def _has_turns(answer: list[Message]) -> bool:
    return any(message["role"] == "user" for message in answer)


def _asked(answers: Sequence[ReferenceAnswer], tokenizer: Any, showing: Showing) -> tuple[list[list[Message]], int]:
    """(what the improver is asked of each, how many reference answers were cut)."""
    found = [showing.prompt(answer, tokenizer) for answer in answers]
    return [prompt for prompt, _ in found], sum(cut for _, cut in found)
