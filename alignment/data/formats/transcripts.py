"""Dialogues that are written as one text, with a name in front of every turn."""

from __future__ import annotations

import re

from alignment.data.example import Message

ROLES = {"Human": "user", "User": "user", "Assistant": "assistant"}
_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_USER_MARK = re.compile(r"(?:\A\s*|\n\n)(User|Assistant):")


def is_transcript(text: object) -> bool:
    """It begins with `Human:` or `Assistant:`, as every Anthropic transcript does."""
    return isinstance(text, str) and re.match(r"\s*(Human|Assistant):", text) is not None


def split_turns(text: str, user: str = "Human") -> list[Message]:
    """The turns of a transcript, without the white space around them. Only a name behind a blank line starts a turn:
    a `Human:` inside a turn is part of what was said. What stands in front of the first name is dropped.
    """
    parts = (_MARK if user == "Human" else _USER_MARK).split(text)
    return [{"role": ROLES[name], "content": said.strip()} for name, said in zip(parts[1::2], parts[2::2], strict=True)]
