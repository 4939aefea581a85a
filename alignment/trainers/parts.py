"""Which third of the data a prompt is in."""

from __future__ import annotations

from typing import Any

from alignment.config import PARTS


def in_part(prompts: Any, part: str) -> Any:
    """Whether prompts are in the third `part`, by their `prompt_hash` alone: of one a bool, of an array (n,) bool."""
    return prompts % len(PARTS) == PARTS.index(part)
