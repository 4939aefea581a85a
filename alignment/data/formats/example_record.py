"""The toolkit's own record, as `align data convert` writes it."""

from __future__ import annotations

import json
from typing import Any

from alignment.data.example import Example, Judgment, Preference, Response
from alignment.data.formats.common import Row, RowError, completion_of, number, prompt_of

NAME = "example"
DESCRIPTION = "the toolkit's own record: prompt, responses, preferences, meta"


def parse(row: Row) -> Example | None:
    if not isinstance(row.get("responses"), list) or "prompt" not in row:
        return None
    if not all(isinstance(response, dict) and "messages" in response for response in row["responses"]):
        return None
    responses = [_response(value, f"responses[{index}]") for index, value in enumerate(row["responses"])]
    preferences = row.get("preferences") or []
    if not isinstance(preferences, list):
        raise RowError("preferences is not a list")
    meta = row.get("meta") or {}
    if isinstance(meta, str):  # in parquet, where a column has one type, it is JSON
        try:
            meta = json.loads(meta)
        except (ValueError, RecursionError) as error:
            raise RowError(f"meta is broken JSON: {error}") from error
    if not isinstance(meta, dict):
        raise RowError("meta is not an object")
    found = [_preference(value, f"preferences[{index}]", len(responses)) for index, value in enumerate(preferences)]
    return Example(prompt_of(row["prompt"]), responses, found, dict(meta))


def _response(value: dict[str, Any], name: str) -> Response:
    judgments = value.get("judgments") or []
    if not isinstance(judgments, list):
        raise RowError(f"{name}.judgments is not a list")
    return Response(
        messages=completion_of(value["messages"], f"{name}.messages"),
        score=number(value.get("score"), f"{name}.score"),
        desirable=_flag(value.get("desirable"), f"{name}.desirable"),
        judgments=[_judgment(item, f"{name}.judgments[{index}]") for index, item in enumerate(judgments)],
        source=_text(value.get("source"), f"{name}.source"),
    )


def _judgment(value: Any, name: str) -> Judgment:
    if not isinstance(value, dict):
        raise RowError(f"{name} is not an object")
    return Judgment(
        text=_text(value.get("text"), f"{name}.text"),
        satisfactory=_flag(value.get("satisfactory"), f"{name}.satisfactory"),
        annotator=_text(value.get("annotator"), f"{name}.annotator"),
    )


def _preference(value: Any, name: str, responses: int) -> Preference:
    if not isinstance(value, dict):
        raise RowError(f"{name} is not an object")
    first, second = value.get("first"), value.get("second")
    for index in (first, second):
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < responses:
            raise RowError(f"{name} names response {index!r} of {responses}")
    if first == second:
        raise RowError(f"{name} compares response {first} with itself")
    p_first = number(value.get("p_first", 1.0), f"{name}.p_first")
    if p_first is not None and not 0 <= p_first <= 1:
        raise RowError(f"{name}.p_first is {p_first}, not in [0, 1]")
    # null is "no verdict": it is kept, and no view makes a label of it
    p_first = float("nan") if p_first is None else p_first
    return Preference(int(first), int(second), p_first, number(value.get("margin"), f"{name}.margin"))  # type: ignore[arg-type]


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RowError(f"{name} is not text")
    return value


def _flag(value: Any, name: str) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise RowError(f"{name} is not true, false or null")
    return value
