"""The data sets that ship with the package, by name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent / "builtin_sets"


def names() -> list[str]:
    """The built-in sets, sorted."""
    return sorted({file.parent.name for file in ROOT.glob("*/*.jsonl")})


def splits(name: str) -> list[str]:
    """The splits of a built-in set, sorted."""
    return sorted(file.stem for file in (ROOT / name).glob("*.jsonl"))


def path_of(name: str, split: str) -> Path | None:
    """The file of one split of a built-in set, or None where there is no such set or split."""
    return ROOT / name / f"{split}.jsonl" if name in names() and split in splits(name) else None
