"""Texts as they are compared for overlap: rows of prompt and answers, cut into words without case and punctuation."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from alignment.data.checks import prompt_key
from alignment.data.example import Example, Message

# Chinese and Japanese are written without spaces: each of their characters is a word.
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_MARKS = re.compile(r"[^\x00-\x7f\w]")  # quotation marks, dashes, …
_ASCII = bytes(ord(chr(code).lower()) if chr(code).isalnum() and code < 128 else ord(" ") for code in range(256))


@dataclass(frozen=True)
class Row:
    """One example: `id` names it for people, `answers` are all of its answers, good and bad."""

    id: str
    prompt: list[Message]
    answers: tuple[str, ...] = ()

    @property
    def turns(self) -> list[str]:
        """The prompt's texts, system text aside: it is often the same in every row."""
        return [turn["content"] for turn in self.prompt if turn["role"] != "system"]

    @property
    def key(self) -> bytes:
        """The same for prompts that differ in case, white space or system text."""
        return prompt_key(self.prompt)


def words(text: str) -> list[str]:
    """The text's words in order: compatibility forms folded (NFKC), without case and punctuation; `don't` is `dont`."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
        text = _MARKS.sub(" ", text)
    if text.isascii():  # the same result as below, several times faster
        return text.encode("ascii").translate(_ASCII, b"'").decode("ascii").split()
    return _WORD.findall(text.replace("'", ""))


def example_rows(examples: Iterable[Example]) -> Iterator[Row]:
    """Rows of examples, named `file:row`."""
    for example in examples:
        meta = example.meta
        place = f"{os.path.basename(meta['source'])}:{meta['row']}" if "source" in meta else example.id
        yield Row(place, example.prompt, tuple(response.text for response in example.responses))


def record_rows(records: Iterable[Any]) -> Iterator[Row]:
    """Rows of what a view gives (pairs, labelled or judged answers, …): whatever they hold as messages is an answer."""
    for record in records:
        answers = [
            "".join(message["content"] for message in value)
            for name, value in vars(record).items()
            if name not in ("prompt", "messages", "meta", "known") and _is_messages(value)
        ]
        yield Row(record.id, record.prompt, tuple(answers))


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(part, dict) and "content" in part for part in value)
    )


def merged(rows: Iterable[Row]) -> list[Row]:
    """Rows of one prompt as one, with all of their answers, under the first one's name."""
    found: dict[bytes, Row] = {}
    for row in rows:
        known = found.get(row.key)
        answers = row.answers if known is None else tuple(dict.fromkeys([*known.answers, *row.answers]))
        found[row.key] = Row(known.id if known else row.id, known.prompt if known else row.prompt, answers)
    return list(found.values())
