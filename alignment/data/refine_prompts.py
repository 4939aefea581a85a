"""Self-Refine by prompting: a model judges its answer, then writes it anew; templates in refine_templates/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alignment.data.example import Message
from alignment.data.slot_templates import in_last_turn, load_texts

FOLDER = Path(__file__).parent / "refine_templates"
_BOTH = ("instruction", "answer")
SLOTS = {"critique": _BOTH, "refine": (*_BOTH, "judgment"), "done": (), "cut": ()}


@dataclass(frozen=True)
class RefineTemplate:
    """What a model is asked for a critique of an answer, and for a better answer with that critique."""

    critique: str  # with {instruction} and {answer}
    refine: str  # with {instruction}, {answer} and {judgment}, which is the critique
    done: str  # a critique that holds these words, in any case, finds nothing to improve
    cut: str  # stands behind an answer that was too long and lost its end

    def to_judge(self, prompt: list[Message], answer: str) -> list[Message]:
        """The prompt with its last user turn, and `answer`, in the template for a critique."""
        return in_last_turn(prompt, self.critique, answer=answer)

    def to_refine(self, prompt: list[Message], answer: str, critique: str) -> list[Message]:
        """The prompt with its last user turn, `answer` and `critique` in the template for a better answer."""
        return in_last_turn(prompt, self.refine, answer=answer, judgment=critique)

    def is_done(self, critique: str) -> bool:
        """Whether the critique finds nothing to improve."""
        return self.done.casefold() in critique.casefold()


def load_refine_template(name: str, setting: str = "refine template") -> RefineTemplate:
    """The template `name` of refine_templates/, or the YAML file at that path.

    Args:
        setting: what gave the name, for messages.

    Raises:
        UserError: no such template, or one that lacks a key or a slot, or has one that is not known.
    """
    return RefineTemplate(**load_texts(name, FOLDER, SLOTS, setting))
