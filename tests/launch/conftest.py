"""A launcher whose runs do nothing but remember what they were asked for."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from alignment.launch.compose import Composer


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see no launcher, whatever started pytest."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ALIGN_TRACEBACK", raising=False)


@pytest.fixture
def composer() -> Composer:
    return Composer.create()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, list[str]]]:
    """Puts a stub in place of alignment.launch.run, and the working folder in tmp_path; returns the calls."""
    calls: list[tuple[Any, list[str]]] = []
    module = types.ModuleType("alignment.launch.run")
    module.run = lambda config, overrides: calls.append((config, overrides))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "alignment.launch.run", module)
    monkeypatch.chdir(tmp_path)
    return calls
