"""A chat whose replies are written by a function of the conversation, and a look into what it was asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from alignment.data.example import Message
from alignment.feedback.verdicts import Reply

PROMPT: list[Message] = [{"role": "user", "content": "Name a bird."}]


def user_text(conversation: Sequence[Message]) -> str:
    return conversation[-1]["content"]


def line_of(conversation: Sequence[Message]) -> str:
    """The begin of the verdict line that the request asks for: the first one outside all tags stands at the end."""
    return re.findall(r"\w+-[0-9a-f]{8}:", user_text(conversation))[-1]


def text_in(conversation: Sequence[Message], slot: str) -> str:
    """What stands in the tags of `slot`, which must be there once."""
    mark = line_of(conversation)[-9:-1]
    found = re.findall(f"<{slot}-{mark}>\n(.*?)\n</{slot}-{mark}>", user_text(conversation), re.DOTALL)
    assert len(found) == 1, (slot, found)
    return found[0]


class Scripted:
    """A Chat; `says` makes the reply: a text, in which LINE stands for the verdict line's begin, or a Reply."""

    name = "script"

    def __init__(self, says: Callable[[list[Message]], str | Reply]) -> None:
        self.says = says
        self.asked: list[list[Message]] = []

    def generate(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        self.asked.extend(conversations)
        return [self._reply(conversation) for conversation in conversations]

    def _reply(self, conversation: list[Message]) -> Reply:
        said = self.says(conversation)
        return said if isinstance(said, Reply) else Reply(said.replace("LINE", line_of(conversation)))
