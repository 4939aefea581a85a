"""TRL's standard preference format: prompt, chosen and rejected are text; without a prompt, both hold it."""

from __future__ import annotations

from alignment.data.example import Example, Response
from alignment.data.formats.common import Row, RowError, answer, has, number, pair, prompt_of, text
from alignment.data.formats.implicit import split_texts

NAME = "standard"
DESCRIPTION = (
    "TRL standard: prompt (or question), chosen, rejected as text; the prompt may be implicit; system optional"
)
_PROMPTS = ("prompt", "question")


def parse(row: Row) -> Example | None:
    if not (has(row, "chosen") or has(row, "rejected")):
        return None
    for name in ("chosen", "rejected"):
        if not has(row, name):
            raise RowError(f"{name} is missing", "empty")
    if not (isinstance(row["chosen"], str) and isinstance(row["rejected"], str)):
        return None
    key = next((key for key in _PROMPTS if has(row, key)), None)
    if key is not None and not isinstance(row[key], str):
        return None
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    used = {key, "chosen", "rejected", "margin", *SYSTEMS}
    if key is None:
        if any(name in row for name in _PROMPTS):
            raise RowError("prompt is empty", "no prompt")
        shared, *answers = split_texts(text(row["chosen"], "chosen"), text(row["rejected"], "rejected"))
        prompt = prompt_of(shared, system=system)
        first, second = (Response.of(value) for value in answers)
    else:
        prompt = prompt_of(row[key], key, system)
        first, second = answer(row["chosen"], "chosen"), answer(row["rejected"], "rejected")
    margin = number(row.get("margin"), "margin")
    return pair(row, (name for name in used if name), prompt, (first, second), margin=margin)


SYSTEMS = ("system", "system_prompt")
