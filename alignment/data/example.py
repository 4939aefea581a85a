"""The one record that carries everything feedback can be. Its views live in views.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]  # {"role": "system" | "user" | "assistant" | …, "content": text}


@dataclass
class Judgment:
    """What one annotator wrote about one response."""

    text: str | None = None
    satisfactory: bool | None = None
    annotator: str | None = None


@dataclass
class Response:
    """One answer: the messages that follow the prompt, nearly always a single assistant turn."""

    messages: list[Message]
    score: float | None = None
    desirable: bool | None = None
    judgments: list[Judgment] = field(default_factory=list)
    source: str | None = None

    @classmethod
    def of(cls, text: str, **fields: Any) -> Response:
        """A response of one assistant turn."""
        return cls(messages=[{"role": "assistant", "content": text}], **fields)

    @property
    def text(self) -> str:
        return "".join(message["content"] for message in self.messages)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary. Written out, since `dataclasses.asdict` is six times slower."""
        judgments = [dict(vars(judgment)) for judgment in self.judgments]
        return {**vars(self), "messages": [dict(message) for message in self.messages], "judgments": judgments}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Response:
        """The inverse of `to_dict`."""
        return cls(
            messages=[dict(message) for message in record["messages"]],
            score=record.get("score"),
            desirable=record.get("desirable"),
            judgments=[Judgment(**judgment) for judgment in record.get("judgments") or []],
            source=record.get("source"),
        )


@dataclass
class Preference:
    """Responses `first` and `second` (indices) compared: `p_first` in [0, 1], a tie is 0.5."""

    first: int
    second: int
    p_first: float = 1.0
    margin: float | None = None


@dataclass
class Example:
    """A prompt, its responses, and what is known about them. `meta` holds source, row, id and whatever else."""

    prompt: list[Message]
    responses: list[Response] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.meta.get("id", ""))

    def to_dict(self) -> dict[str, Any]:
        """A plain, JSON-ready dictionary (as far as `meta` is JSON-ready); `from_dict` gives an equal example back."""
        return {
            "prompt": [dict(message) for message in self.prompt],
            "responses": [response.to_dict() for response in self.responses],
            "preferences": [dict(vars(preference)) for preference in self.preferences],
            "meta": dict(self.meta),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Example:
        """The inverse of `to_dict`. It trusts its input: rows from outside go through formats/example_record.py."""
        return cls(
            prompt=[dict(message) for message in record["prompt"]],
            responses=[Response.from_dict(response) for response in record.get("responses") or []],
            preferences=[Preference(**preference) for preference in record.get("preferences") or []],
            meta=dict(record.get("meta") or {}),
        )


def content_id(example: Example) -> str:
    """12 hex digits over the prompt's and the responses' messages: the same text has the same id in every run.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate, which no file can carry.
    """
    content = [example.prompt, [response.messages for response in example.responses]]
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=6).hexdigest()
