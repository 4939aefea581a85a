"""Small preference files for whole runs."""

from __future__ import annotations

import json
from pathlib import Path

COLOURS = ["red", "blue", "green", "grey", "brown", "white", "black", "pink"]
THINGS = ["cup", "door", "lamp", "boat", "coat", "wall"]


def write_pairs(file: Path, start: int = 0, count: int = 24) -> Path:
    """TRL-standard rows: short answers chosen over long ones. Different `start`s give different prompts."""
    rows = []
    for number in range(start, start + count):
        colour, thing = COLOURS[number % 8], THINGS[number // 8 % 6]
        rows.append(
            {
                "prompt": f"What do you say about the {colour} {thing} number {number}?",
                "chosen": f"It is {colour}.",
                "rejected": f"Well, the {thing} that you mean, and there are many, is one of those that are {colour}.",
            }
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
