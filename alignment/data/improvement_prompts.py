"""Prompts with an answer in them that is to be improved: templates as files, in improvement_templates/ or one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.example import Message
from alignment.data.slot_templates import in_last_turn, load_texts, quoted

FOLDER = Path(__file__).parent / "improvement_templates"
SLOTS = {"plain": ("instruction",), "improve": ("instruction", "answer"), "cut": ()}


@dataclass(frozen=True)
class ImprovementTemplate:
    """How an instruction is put to the model, alone and with a reference answer that it is to improve."""

    plain: str  # with {instruction}: what the policy M_P is asked
    improve: str  # with {instruction} and {answer}: what the improver M_PIT is asked
    cut: str  # stands behind a reference answer that was too long and lost its end

    def asked(self, prompt: list[Message]) -> list[Message]:
        """The prompt with its last user turn in the plain template."""
        return in_last_turn(prompt, self.plain)

    def to_improve(self, prompt: list[Message], reference: str) -> list[Message]:
        """The prompt with its last user turn, and the text `reference`, in the template for both.

        Where the reference says nothing, nothing is to improve: the plain question is asked.
        """
        if not reference.strip():
            return self.asked(prompt)
        return in_last_turn(prompt, self.improve, answer=reference)

    def quoted(self, reference: str, tokenizer: Any, limit: int) -> tuple[str, bool]:
        """(a reference as it may stand in a prompt, whether it was too long): `quoted`, with the template's `cut`."""
        return quoted(reference, tokenizer, limit, self.cut)


def load_improvement_template(name: str, setting: str = "pit.template") -> ImprovementTemplate:
    """The template `name` of improvement_templates/, or the YAML file at that path.

    Args:
        setting: what gave the name, for messages.

    Raises:
        UserError: no such template, or one that lacks a key or a slot, or has one that is not known.
    """
    return ImprovementTemplate(**load_texts(name, FOLDER, SLOTS, setting))
