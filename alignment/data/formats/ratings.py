"""One answer a row with an absolute rating."""

from __future__ import annotations

from alignment.data.example import Example
from alignment.data.formats.common import Row, RowError, answer, build, has, instruction_prompt, number, prompt_of
from alignment.data.formats.standard import SYSTEMS

NAME = "ratings"
DESCRIPTION = "one rated answer: prompt or instruction (and input), response or completion, rating or score"


def parse(row: Row) -> Example | None:
    response = next((key for key in ("response", "completion") if isinstance(row.get(key), str)), None)
    rating = next((key for key in ("rating", "score") if has(row, key)), None)
    if response is None or rating is None or not ("prompt" in row or "instruction" in row):
        return None
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    prompt = prompt_of(row["prompt"], system=system) if "prompt" in row else instruction_prompt(row, system)
    score = number(row[rating], rating)
    if score is None:
        raise RowError(f"{rating} is empty", "empty")
    used = ("prompt", "instruction", "input", response, rating, *SYSTEMS)
    return build(row, used, prompt, [answer(row[response], response, score=score)])
