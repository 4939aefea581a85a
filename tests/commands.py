"""Run `align …` in this process, as the console script does."""

from __future__ import annotations

import sys

import pytest

from alignment import __main__ as program


def align(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of `align ARGUMENTS`."""
    monkeypatch.delenv("ALIGN_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "argv", ["align", *map(str, arguments)])
    try:
        return program.main()
    except SystemExit as end:
        return int(end.code or 0)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `align ARGUMENTS` says as it refuses: exit code 2, one or two lines, no traceback."""
    capsys.readouterr()
    assert align(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error and len(error.strip().splitlines()) <= 2, error
    return error
