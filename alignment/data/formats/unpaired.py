"""One answer a row: with a label (KTO), or without (a demonstration)."""

from __future__ import annotations

from alignment.data.example import Example, Response
from alignment.data.formats.common import (
    Row,
    RowError,
    build,
    completion_of,
    flag,
    has,
    instruction_prompt,
    is_messages,
    messages,
    prompt_of,
)
from alignment.data.formats.standard import SYSTEMS

NAME = "unpaired"
DESCRIPTION = (
    "TRL unpaired: prompt and completion (or response), or messages that end with the answer; label true/false; "
    "Alpaca's instruction (and input) with one output, AlpacaEval's generator"
)
_ANSWERS = ("completion", "response")


def parse(row: Row) -> Example | None:
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    key = next((key for key in _ANSWERS if has(row, key)), None)
    if key is not None and has(row, "prompt"):
        prompt, answer = prompt_of(row["prompt"], system=system), completion_of(row[key], key)
        used = ["prompt", key]
    elif key is not None and "prompt" in row:
        raise RowError("prompt is empty", "no prompt")
    elif is_messages(row.get("messages")):
        turns = messages(row["messages"], "messages")
        if turns[-1]["role"] != "assistant":
            if has(row, "label"):
                raise RowError(f"messages end with a turn of '{turns[-1]['role']}': there is no answer", "empty")
            return None  # a prompt
        prompt, answer = prompt_of(turns[:-1], "messages", system), completion_of(turns[-1:], "messages")
        used = ["messages"]
    elif has(row, "instruction") and isinstance(row.get("output"), str):
        prompt, answer = instruction_prompt(row, system), completion_of(row["output"], "output")
        used = ["instruction", "input", "output", "generator"]
    else:
        return None
    desirable = flag(row["label"], "label") if has(row, "label") else None
    source = row["generator"] if "generator" in used and isinstance(row.get("generator"), str) else None
    return build(row, (*used, "label", *SYSTEMS), prompt, [Response(answer, desirable=desirable, source=source)])
