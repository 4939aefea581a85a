"""What every format needs: the error that a bad row raises, and the checks on text, turns, numbers and verdicts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from alignment.data.example import Example, Message, Preference, Response

Row = Mapping[str, Any]
Kind = Literal["empty", "identical", "no prompt", "unknown format", "other"]


class RowError(Exception):
    """The row is in this format and cannot be used. `kind` says which pre-flight check it belongs to."""

    def __init__(self, reason: str, kind: Kind = "other") -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind: Kind = kind


def has(row: Row, *keys: str) -> bool:
    """All of these keys are there and hold something: parquet and mixed files give null for "not there"."""
    return all(row.get(key) is not None for key in keys)


def is_messages(value: Any) -> bool:
    """A list that means turns: its first item is an object with a role and a content."""
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and {"role", "content"} <= set(value[0])
    )


def text(value: Any, name: str) -> str:
    """The string itself, untouched.

    Raises:
        RowError: not a string, or nothing but white space.
    """
    if not isinstance(value, str):
        raise RowError(f"{name} is {_kind_of(value)}, not text", "empty" if value is None else "other")
    if not value.strip():
        raise RowError(f"{name} is empty", "empty")
    return value


def optional_text(value: Any, name: str) -> str:
    """Like `text`, with "" for nothing: null, "", white space, and the "nan" that spreadsheets write for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise RowError(f"{name} is {_kind_of(value)}, not text")
    return "" if value.strip().lower() in ("", "nan") else value


def messages(value: Any, name: str) -> list[Message]:
    """A list of role/content objects as messages; content given as text parts is joined.

    Raises:
        RowError: anything else, tool calls and images included.
    """
    if not isinstance(value, list) or not value:
        raise RowError(f"{name} is {_kind_of(value)}, not a list of messages", "empty" if not value else "other")
    return [_message(item, f"{name}[{number}]") for number, item in enumerate(value)]


def _message(item: Any, name: str) -> Message:
    if not isinstance(item, dict):
        raise RowError(f"{name} is {_kind_of(item)}, not a message with role and content")
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or not role:
        raise RowError(f"{name} has no role")
    if item.get("tool_calls"):
        raise RowError(f"{name} holds tool calls, which are not supported")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise RowError(f"{name} holds a part that is not text")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise RowError(f"{name}: content is {_kind_of(content)}, not text")
    return {"role": role, "content": content}


def prompt_of(value: Any, name: str = "prompt", system: Any = None) -> list[Message]:
    """Text (one user turn) or messages as a prompt, with the system text, if any, as its first turn.

    Raises:
        RowError: no turn of it says anything.
    """
    if isinstance(value, str):
        turns = [{"role": "user", "content": value}]
    elif value is None or value == []:
        turns = []
    else:
        turns = messages(value, name)
    if not any(turn["content"].strip() for turn in turns if turn["role"] != "system"):
        raise RowError(f"{name} is empty", "no prompt")
    said = optional_text(system, "system")
    if said and not (turns[0]["role"] == "system" and turns[0]["content"] == said):
        turns = [{"role": "system", "content": said}, *turns]
    return turns


def instruction_prompt(row: Row, system: Any = None) -> list[Message]:
    """Alpaca's instruction and, where there is one, its input below it, as one user turn."""
    instruction = optional_text(row.get("instruction"), "instruction")
    given = optional_text(row.get("input"), "input")
    return prompt_of("\n\n".join(part for part in (instruction, given) if part), "instruction", system)


def completion_of(value: Any, name: str) -> list[Message]:
    """Text (one assistant turn), one message, or messages as a completion.

    Raises:
        RowError: the last turn is empty, or is not the assistant's.
    """
    if isinstance(value, str):
        turns = [{"role": "assistant", "content": value}]
    elif isinstance(value, dict):
        turns = [_message(value, name)]
    else:
        turns = messages(value, name)
    if not turns[-1]["content"].strip():
        raise RowError(f"{name} is empty", "empty")
    if turns[-1]["role"] != "assistant":
        raise RowError(f"{name} ends with a turn of '{turns[-1]['role']}', not of 'assistant'")
    return turns


def number(value: Any, name: str) -> float | None:
    """A finite number, also one written as text; None for nothing (null, "", NaN).

    Raises:
        RowError: anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan", "none", "null")):
        return None
    try:
        found = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.inf
    if math.isinf(found):
        raise RowError(f"{name} is {_shown(value)}, not a number")
    return None if math.isnan(found) else found


def flag(value: Any, name: str) -> bool:
    """A boolean, also one written as text or as 0 and 1.

    Raises:
        RowError: anything else.
    """
    known = {"true": True, "1": True, "1.0": True, "yes": True, "false": False, "0": False, "0.0": False, "no": False}
    found = known.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if found is None:
        raise RowError(f"{name} is {_shown(value)}, not true or false")
    return found


def verdict(value: Any, first: Collection[Any], second: Collection[Any], tie: Collection[Any], name: str) -> float:
    """P(first ≻ second) of a label: 1.0, 0.0 or 0.5, by the set that it is in.

    Raises:
        RowError: it is in none of them.
    """
    key = value.strip().lower() if isinstance(value, str) else value
    if isinstance(key, str | int | float) and not isinstance(key, bool):
        for known, p_first in ((first, 1.0), (second, 0.0), (tie, 0.5)):
            if key in known:
                return p_first
    expected = ", ".join(str(option) for option in [*first, *second, *tie])
    raise RowError(f"{name} is {_shown(value)}; known are {expected}")


def build(
    row: Row,
    used: Iterable[str],
    prompt: list[Message],
    responses: list[Response],
    preferences: list[Preference] | None = None,
) -> Example:
    """The example, with every field of the row that was not used kept under meta["fields"]."""
    taken = set(used)
    fields = {key: value for key, value in row.items() if key not in taken and value is not None}
    return Example(prompt, responses, preferences or [], {"fields": fields} if fields else {})


def pair(
    row: Row,
    used: Iterable[str],
    prompt: list[Message],
    responses: tuple[Response, Response],
    p_first: float = 1.0,
    margin: float | None = None,
) -> Example:
    """An example of two compared responses.

    Raises:
        RowError: both say the same.
    """
    if responses[0].messages == responses[1].messages:
        raise RowError("both answers are the same text", "identical")
    return build(row, used, prompt, list(responses), [Preference(0, 1, p_first, margin)])


def answer(value: Any, name: str, **fields: Any) -> Response:
    """A response of one assistant turn, out of a text that must say something."""
    return Response.of(text(value, name), **fields)


def _kind_of(value: Any) -> str:
    kinds = {type(None): "missing", bool: f"the boolean {value}", dict: "an object", list: "a list", str: "text"}
    if value == []:
        return "an empty list"
    return kinds.get(type(value)) or (f"the number {value}" if isinstance(value, int | float) else type(value).__name__)


def _shown(value: Any) -> str:
    shown = repr(value) if isinstance(value, str | int | float | bool | type(None)) else _kind_of(value)
    return shown if len(shown) <= 40 else shown[:37] + "…'"
