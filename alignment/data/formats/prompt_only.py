"""Prompts to be answered: for online methods and for evaluation."""

from __future__ import annotations

from alignment.data.example import Example
from alignment.data.formats.common import Row, RowError, build, has, is_messages, prompt_of
from alignment.data.formats.standard import SYSTEMS

NAME = "prompt_only"
DESCRIPTION = "prompts alone: prompt (text or messages), messages that end with the user, or turns (the first is taken)"
# A field with such a name says that there is an answer in the row: then taking the prompt alone would lose it silently.
_ANSWER_LIKE = ("answer", "response", "completion", "output", "chosen", "rejected", "winner", "ranking")


def parse(row: Row) -> Example | None:
    if any(mark in str(key).lower() for key in row if row[key] is not None for mark in _ANSWER_LIKE):
        return None
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    if "prompt" in row:
        key, value = "prompt", row["prompt"]
        if isinstance(value, dict) and isinstance(value.get("text"), str):
            value = value["text"]
        if not (value is None or isinstance(value, str) or value == [] or is_messages(value)):
            return None
    elif is_messages(row.get("messages")):
        key, value = "messages", row["messages"]
    elif isinstance(row.get("turns"), list) and row["turns"] and isinstance(row["turns"][0], str):
        key, value = "turns", row["turns"][0]
        if len(row["turns"]) > 1:  # later turns speak of an answer that is not there yet
            row = {**row, "later_turns": row["turns"][1:]}
    else:
        return None
    for name in row:  # no format before this one found an answer, so a field for one is there and holds nothing
        if any(mark in str(name).lower() for mark in _ANSWER_LIKE):
            raise RowError(f"{str(name)[:40]} is missing", "empty")
    prompt = prompt_of(value, key, system)
    if prompt[-1]["role"] == "assistant":
        raise RowError(f"{key} ends with the assistant's turn: there is nothing to answer", "no prompt")
    return build(row, (key, *SYSTEMS), prompt, [])
