"""The data sets that ship with the package, by name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent / "builtin_sets"


def names() -> list[str]:
    """The built-in sets, sorted."""
    return sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir()) if ROOT.is_dir() else []


def path_of(name: str, split: str) -> Path | None:
    """The file of one split of a built-in set, or None where there is no such set or split."""
    path = ROOT / name / f"{split}.jsonl"
    return path if name in names() and path.is_file() else None
