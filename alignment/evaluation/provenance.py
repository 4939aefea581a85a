"""Where a model comes from: its data and base model with their licences, who judged, and the toolkit's commit.

Only what lies on this machine is asked: cards beside the files, or in the hub's cache.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

import alignment
from alignment.data import builtin
from alignment.errors import UserError
from alignment.evaluation.row import section
from alignment.yaml_files import parse_yaml

NOT_STATED = "not stated"
_BUILTIN_MODELS = {"tiny": "Apache-2.0", "smollm2-135m": "Apache-2.0"}
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_ROW = re.compile(r"^\|\s*Licen[cs]e\s*\|\s*(.+?)\s*\|", re.MULTILINE | re.IGNORECASE)
_MOST = 100_000  # characters of a card that are read


def provenance(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `provenance` entry of summary.json, from the settings of a run.

    Keys: sources [{path, licence}] of the training data, base {path, licence}, feedback and score (each the names of
    what judged, with the models behind them), toolkit {version, commit, changed}. What is not known is left out.
    """
    model = section(config, "model").get("path")
    found: dict[str, Any] = {
        "sources": [{"path": path, "licence": _licence_of_data(path)} for path in _paths(config)],
        "base": {"path": str(model or ""), "licence": _licence_of_model(str(model or ""))},
        "toolkit": toolkit(),
    }
    for key, given in (("feedback", config.get("feedback")), ("score", section(config, "evaluation").get("score"))):
        if named := list(_judges(given)):
            found[key] = named
    return found


def toolkit() -> dict[str, Any]:
    """Version of the toolkit and, of a checkout, its commit and whether files differ from it."""
    found: dict[str, Any] = {}
    with suppress(PackageNotFoundError):  # a checkout that was never installed
        found["version"] = version("alignment-toolkit")
    root = Path(alignment.__file__).resolve().parents[1]
    if (root / ".git").exists():
        commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
        found |= {"commit": commit} if commit else {}
        found |= {"changed": bool(changed)} if changed is not None else {}
    return found


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _paths(config: Mapping[str, Any]) -> list[str]:
    path = section(config, "data").get("path")
    return [str(each) for each in (path if isinstance(path, (Mapping, list)) else [path]) if each]


def _judges(given: Any) -> Iterator[str]:
    """The names in a feedback section, from the outside in, each with the model that it asks."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, list):
        for each in given:
            yield from _judges(each)
    elif isinstance(given, Mapping):
        if name := given.get("name"):
            model = given.get("model") or given.get("path")
            yield f"{name} ({model})" if model else str(name)
        for key, value in given.items():
            if isinstance(value, (Mapping, list)) or key == "of":
                yield from _judges(value)


def _licence_of_data(path: str) -> str:
    if path in builtin.names():
        return _licence_in(builtin.ROOT / path / "README.md")
    return _licence_at(path, "dataset")


def _licence_of_model(path: str) -> str:
    return _BUILTIN_MODELS.get(path) or _licence_at(path, "model")


def _licence_at(path: str, kind: str) -> str:
    """Of the card beside a file or in a folder, else of the hub's cached card."""
    try:
        local = Path(path).expanduser()
        if local.exists():
            return _licence_in((local if local.is_dir() else local.parent) / "README.md")
        cached = try_to_load_from_cache(path.partition(":")[0], "README.md", repo_type=kind)
    except (OSError, ValueError):  # no path, and no hub id either
        return NOT_STATED
    return _licence_in(Path(cached)) if isinstance(cached, str) else NOT_STATED


def _licence_in(card: Path) -> str:
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST)
        front = _FRONT.match(text)
        settings = parse_yaml(front[1], card) if front else None
    except (OSError, ValueError, UserError):
        return NOT_STATED
    stated = settings.get("license") if isinstance(settings, dict) else None
    if isinstance(stated, (str, list)) and stated:
        return stated if isinstance(stated, str) else ", ".join(map(str, stated))
    row = _ROW.search(text)
    return row[1] if row else NOT_STATED
