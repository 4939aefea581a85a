"""A model to be asked: one in this process, or one behind an OpenAI-compatible endpoint. Settings choose which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.verdicts import Reply


class Chat(Protocol):
    """Answers conversations. One in this process can also say how likely each of some words is to come next."""

    name: str  # the annotator's name in judgments

    def generate(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """One reply to each conversation, in their order."""
        ...


class ScoringChat(Chat, Protocol):
    """A chat that gives the probabilities of words."""

    def word_probabilities(
        self, conversations: Sequence[list[Message]], leads: Sequence[str], words: Sequence[str]
    ) -> list[list[float] | None]:
        """P(word | conversation, the answer begins with lead, the next word is one of `words`), for each word.

        None where the conversation is too long for the model.
        """
        ...


@dataclass(kw_only=True)
class ChatSettings:
    """Which model is asked, and how. `path` loads it here; `base_url` and `model` ask it where it is served."""

    path: str | None = None  # a built-in's name, a folder, a hub id or a GGUF file, as of model.path
    base_url: str | None = None  # of an OpenAI-compatible endpoint, such as http://localhost:8000/v1
    model: str | None = None  # its name there
    temperature: float | None = 0.0  # 0: the likeliest answer; null (served): the server's own
    seed: int | None = 0  # another seed asks anew; null (served): none is sent
    max_tokens: int | None = 512  # of one answer; null (served): the server's own
    # of a model in this process
    dtype: str = "float32"  # of the weights in memory: auto | float32 | bfloat16 | float16
    revision: str | None = None  # of a hub id
    chat_template: str | None = None  # a Jinja file that replaces the tokenizer's own
    trust_remote_code: bool = False
    token_budget: int = 8192  # tokens scored at once
    batch_size: int = 16  # answers written at once
    # of a served one
    api_key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key
    timeout: float = 60.0  # seconds that a server may keep silent
    max_retries: int = 5  # after a 429, a 5xx, a time-out or a cut connection, with growing pauses
    concurrency: int = 16  # requests under way at once
    max_requests: int | None = None  # all that this object may send, retries not counted
    max_total_tokens: int | None = None  # sent and received; requests under way when it is reached are still finished
    cache: Any = True  # of answers, by content: true: in the user's cache folder; a folder; false: none
    extra: dict[str, Any] | None = None  # sent along as it stands, such as {reasoning_effort: low}
    chat: Any = field(default=None, repr=False)  # in Python: an object of one's own with the methods of Chat

    def check_chat(self) -> None:
        """Refuse settings that no chat can work with."""
        checks.number(self, "temperature", 0, none=True)
        checks.number(self, "seed", 0, whole=True, none=True)
        checks.number(self, "max_tokens", 1, whole=True, none=True)
        for name in ("token_budget", "batch_size", "concurrency"):
            checks.number(self, name, 1, whole=True)
        checks.number(self, "timeout", 0.001)
        checks.number(self, "max_retries", 0, whole=True)
        for name in ("max_requests", "max_total_tokens"):
            checks.number(self, name, 0, whole=True, none=True)
        for name in ("path", "base_url", "model", "revision", "chat_template"):
            if getattr(self, name) is not None:
                checks.text(self, name)
        if self.extra is not None and not isinstance(self.extra, dict):
            raise checks.WrongSetting(self, "extra", "a mapping is needed")
        if self.chat is None and (self.path is None) == (self.base_url is None):
            raise UserError(
                f"{type(self).__name__} needs a model: path=… of one that is loaded here, or base_url=… and model=… of "
                "one that is served; not both"
            )
        if self.path is not None:
            for name in ("temperature", "seed", "max_tokens"):
                checks.number(self, name)  # here there is no server whose own could be taken


def open_chat(settings: ChatSettings, counts: Counter[str]) -> Chat:
    """The chat that `settings` describe. It adds to `counts` what it asked.

    Raises:
        UserError: settings that cannot be used, or a model that is not there.
    """
    settings.check_chat()
    if settings.chat is not None:
        return settings.chat
    if settings.path is not None:
        from alignment.feedback.local import LocalChat  # imports torch

        return LocalChat(settings, counts)
    from alignment.feedback.served import ServedChat

    return ServedChat(settings, counts)
