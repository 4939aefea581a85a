"""One line of the end-of-run table, and how its numbers are found in a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table. Cells are ready to show; an empty one has no meaning in this row."""

    key: str
    label: str
    before: str = ""
    after: str = ""
    difference: str = ""
    interval: str = ""
    reading: str = ""  # one or two sentences in plain words
    tone: str = "plain"  # good | bad | plain


def section(summary: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`, empty where it is absent or something else."""
    value = summary.get(key)
    return value if isinstance(value, Mapping) else {}
