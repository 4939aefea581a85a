"""ShareGPT turns (from/value), with LLaMA-Factory's chosen and rejected, or with a label for the last answer."""

from __future__ import annotations

from typing import Any

from alignment.data.example import Example, Message, Response
from alignment.data.formats.common import Row, RowError, build, completion_of, flag, has, pair, prompt_of
from alignment.data.formats.standard import SYSTEMS

NAME = "sharegpt"
DESCRIPTION = "ShareGPT conversations (from/value) with chosen and rejected turns, or with a label or kto_tag"
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


def parse(row: Row) -> Example | None:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        return None
    if "from" not in turns[0] and "role" not in turns[0]:
        return None
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    history = [_turn(turn, f"conversations[{index}]") for index, turn in enumerate(turns)]
    if has(row, "chosen") or has(row, "rejected"):
        answers = Response(_answer(row, "chosen")), Response(_answer(row, "rejected"))
        if history[-1]["role"] == "assistant":
            raise RowError("conversations end with an answer already, beside chosen and rejected")
        used = ("conversations", "chosen", "rejected", *SYSTEMS)
        return pair(row, used, prompt_of(history, "conversations", system), answers)
    if history[-1]["role"] != "assistant":
        return build(row, ("conversations", *SYSTEMS), prompt_of(history, "conversations", system), [])
    label = next((key for key in ("label", "kto_tag") if has(row, key)), None)
    response = Response(
        completion_of(history[-1:], "conversations"), desirable=None if label is None else flag(row[label], label)
    )
    used = ("conversations", "label", "kto_tag", *SYSTEMS)
    return build(row, used, prompt_of(history[:-1], "conversations", system), [response])


def _answer(row: Row, name: str) -> list[Message]:
    value = row.get(name)
    if isinstance(value, dict):
        value = [_turn(value, name)]
    elif isinstance(value, list):
        value = [_turn(turn, f"{name}[{index}]") for index, turn in enumerate(value)]
    if value is None:
        raise RowError(f"{name} is missing", "empty")
    return completion_of(value, name)


def _turn(turn: Any, name: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{name} is not a turn with from and value")
    speaker = turn.get("from", turn.get("role"))
    said = turn.get("value", turn.get("content"))
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise RowError(f"{name}: unknown speaker {str(speaker)[:40]!r}; known are {', '.join(_ROLES)}")
    if not isinstance(said, str):
        raise RowError(f"{name} has no text")
    return {"role": role, "content": said}
