"""chosen and rejected as lists of messages, with a prompt (text or messages) or without."""

from __future__ import annotations

from typing import Any

from alignment.data.example import Example, Message, Response
from alignment.data.formats.common import Row, RowError, completion_of, has, number, pair, prompt_of
from alignment.data.formats.implicit import split_transcripts
from alignment.data.formats.standard import SYSTEMS

NAME = "conversational"
DESCRIPTION = "TRL conversational: chosen and rejected as messages; prompt as messages or text, or implicit"


def parse(row: Row) -> Example | None:
    if not has(row, "chosen", "rejected"):
        return None
    if not any(isinstance(row.get(key), list | dict) for key in ("prompt", "chosen", "rejected")):
        return None
    chosen, rejected = completion_of(row["chosen"], "chosen"), completion_of(row["rejected"], "rejected")
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    if chosen[0]["role"] == "assistant" and rejected[0]["role"] == "assistant" and has(row, "prompt"):
        prompt = prompt_of(row["prompt"], system=system)
    else:
        shared, chosen, rejected = split_transcripts(chosen, rejected)
        _belongs(row.get("prompt"), shared)
        prompt = prompt_of(shared, system=system)
    margin = number(row.get("margin"), "margin")
    used = ("prompt", "chosen", "rejected", "margin", *SYSTEMS)
    return pair(row, used, prompt, (Response(chosen), Response(rejected)), margin=margin)


def _belongs(prompt: Any, shared: list[Message]) -> None:
    """A prompt beside two whole transcripts must be what they share, or one turn of it."""
    if prompt is None:
        return
    said = {turn["content"].strip() for turn in shared}
    for turn in prompt_of(prompt):
        if turn["content"].strip() not in said:
            raise RowError("prompt is not part of what chosen and rejected have in common")
