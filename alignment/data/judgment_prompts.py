"""Prompts with a written judgment in them: templates as files, in judgment_templates/ or of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignment.data.example import Message
from alignment.data.slot_templates import in_last_turn, load_texts

FOLDER = Path(__file__).parent / "judgment_templates"
SLOTS = {"plain": ("instruction",), "judged": ("instruction", "judgment"), "positive": ()}


@dataclass(frozen=True)
class JudgmentTemplate:
    """How an instruction is put to the model, alone and with a judgment that the answer is to fit."""

    plain: str  # with {instruction}: what the model is asked at inference, too
    judged: str  # with {instruction} and {judgment}
    positive: str  # the text of a judgment that finds nothing wrong: the paper's fake positive judgment j+

    def asked(self, prompt: list[Message]) -> list[Message]:
        """The prompt with its last user turn in the plain template."""
        return in_last_turn(prompt, self.plain)

    def with_judgment(self, prompt: list[Message], judgment: str) -> list[Message]:
        """The prompt with its last user turn, and `judgment`, in the template for both."""
        return in_last_turn(prompt, self.judged, judgment=judgment)


def load_judgment_template(name: str) -> JudgmentTemplate:
    """The template `name` of judgment_templates/, or the YAML file at that path.

    Raises:
        UserError: no such template, or one that lacks a key or a slot, or has one that is not known.
    """
    return JudgmentTemplate(**load_texts(name, FOLDER, SLOTS, "judged.template"))
