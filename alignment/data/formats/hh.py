"""Anthropic HH: chosen and rejected are two whole transcripts, as text. Some copies cut the prompt off already."""

from __future__ import annotations

from alignment.data.example import Example, Message, Response
from alignment.data.formats.common import Row, RowError, answer, pair, prompt_of
from alignment.data.formats.implicit import split_transcripts
from alignment.data.formats.transcripts import is_transcript, split_turns

NAME = "hh"
DESCRIPTION = "Anthropic HH transcripts (Human:/Assistant:) in chosen and rejected, prompt implicit or given"


def parse(row: Row) -> Example | None:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return None
    if is_transcript(chosen) and is_transcript(rejected):
        prompt, first, second = split_transcripts(_turns(chosen, "chosen"), _turns(rejected, "rejected"))
        return pair(row, _KEYS, prompt_of(prompt), (Response(first), Response(second)))
    if is_transcript(row.get("prompt")):
        turns = split_turns(row["prompt"])
        if turns[-1] == {"role": "assistant", "content": ""}:  # the open mark at which the answer begins
            turns.pop()
        return pair(row, _KEYS, prompt_of(turns), (answer(chosen, "chosen"), answer(rejected, "rejected")))
    return None


_KEYS = ("prompt", "chosen", "rejected")


def _turns(text: str, name: str) -> list[Message]:
    turns = split_turns(text)
    if turns[-1]["role"] != "assistant":
        raise RowError(f"{name} ends with a turn of the human", "empty")
    if not turns[-1]["content"]:
        raise RowError(f"the last reply of {name} is empty", "empty")
    return turns
