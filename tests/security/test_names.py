"""Names that no file can have are one line, wherever they are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.launch.entry import main
from tests.commands import refused

LONG = "a" * 5000


@pytest.mark.parametrize(
    "words",
    [
        [f"recipe={LONG}.yaml"],
        ["recipe=dpo", "model=tiny", f"feedback={LONG}.yaml"],
        ["recipe=dpo", "model=tiny", f"data.format={LONG}.py"],
        [f"resume={LONG}"],
    ],
    ids=["recipe", "feedback", "format", "resume"],
)
def test_too_long_a_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "too long" in error and len(error.splitlines()) == 1 and len(error) < 300


def test_of_data_and_of_links_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "too long" in refused(monkeypatch, capsys, "data", "check", LONG)
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    assert "loop" in refused(monkeypatch, capsys, "data", "check", tmp_path / "loop.jsonl")
