"""Several answers a row with ranks (1 or 0 is best) or scores (higher is better)."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from alignment.data.example import Example, Preference, Response
from alignment.data.formats.common import Row, RowError, answer, build, has, number, prompt_of
from alignment.data.formats.standard import SYSTEMS

NAME = "rankings"
DESCRIPTION = "several answers: prompt, responses (or answers, completions) with ranks or scores, beside or inside them"
_LISTS = ("responses", "answers", "completions")


def parse(row: Row) -> Example | None:
    key = next((key for key in _LISTS if isinstance(row.get(key), list) and row[key]), None)
    if key is None or not has(row, "prompt"):
        return None
    items: list[Any] = row[key]
    if all(isinstance(item, dict) for item in items):
        name = next((name for name in ("answer", "response", "text") if all(name in item for item in items)), None)
        kind = next((kind for kind in ("rank", "score") if all(kind in item for item in items)), None)
        if name is None or kind is None:
            return None
        texts, values, used = [item[name] for item in items], [item[kind] for item in items], [key]
    else:
        column = next((c for c in ("ranks", "ranking", "scores", "ratings") if isinstance(row.get(c), list)), None)
        if column is None:
            return None
        texts, values, used = items, row[column], [key, column]
        kind = "rank" if column.startswith("rank") else "score"
    if len(values) != len(texts):
        raise RowError(f"{len(texts)} answers, but {len(values)} {kind}s")
    system = next((row[field] for field in SYSTEMS if has(row, field)), None)
    responses = [answer(said, f"{key}[{index}]") for index, said in enumerate(texts)]
    for item, response in zip(items, responses, strict=True):
        if isinstance(item, dict) and isinstance(item.get("model"), str):
            response.source = item["model"]
    numbers = [number(value, f"{kind} {index}") for index, value in enumerate(values)]
    if kind == "score":
        for response, score in zip(responses, numbers, strict=True):
            response.score = score
    return build(
        row,
        ("prompt", *used, *SYSTEMS),
        prompt_of(row["prompt"], system=system),
        responses,
        ranked(responses, numbers) if kind == "rank" else [],
    )


def ranked(responses: list[Response], ranks: list[float | None]) -> list[Preference]:
    """A preference for every two ranked responses: the lower rank wins, equal ranks tie. Unranked ones have none."""
    return [
        Preference(i, j, 0.5 if a == b else float(a < b))
        for (i, a), (j, b) in combinations(enumerate(ranks[: len(responses)]), 2)
        if a is not None and b is not None
    ]
