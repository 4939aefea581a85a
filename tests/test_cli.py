"""`align …`: arguments reach the right function, and mistakes end with exit code 2."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from alignment import __main__ as program
from alignment.errors import UserError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stubs for the functions behind the commands; what they were given is kept by name."""
    seen: dict[str, Any] = {}

    def stub(module: str, **functions: Any) -> None:
        fake = types.ModuleType(module)
        for name, result in functions.items():

            def call(*args: Any, _name: str = name, _result: Any = result, **kwargs: Any) -> Any:
                seen[_name] = (args, kwargs)
                if isinstance(_result, Exception):
                    raise _result
                return _result

            setattr(fake, name, call)
        monkeypatch.setitem(sys.modules, module, fake)

    stub("alignment.evaluation.compare", compare=UserError("nowhere is not a finished run"))
    stub("alignment.evaluation.export", export=Path("out"))
    return seen


def align(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `align ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["align", *arguments])
    try:
        return program.main()
    except SystemExit as end:
        return int(end.code or 0)


def test_export(monkeypatch: pytest.MonkeyPatch, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert align(monkeypatch, "export", "run", "out", "--dtype", "bfloat16") == 0
    assert calls["export"] == ((Path("run"), Path("out"), "bfloat16", False, print), {})
    assert "exported to out" in capsys.readouterr().out


def test_user_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ALIGN_TRACEBACK", raising=False)
    assert align(monkeypatch, "compare", "nowhere", "b") == 2
    assert capsys.readouterr().err == "error: nowhere is not a finished run\n"
    assert calls["compare"][0][0] == [Path("nowhere"), Path("b")]


@pytest.mark.parametrize("arguments", [["frobnicate"], ["compare"], ["export", "run"], ["data", "check"]])
def test_usage_errors(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert align(monkeypatch, *arguments) == 2


def test_train_is_the_launcher(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert align(monkeypatch, "train", "--help") == 0
    assert "align train recipe=dpo" in capsys.readouterr().out
    assert align(monkeypatch, "train", "recipe=dpoo") == 2
    assert "unknown recipe 'dpoo'" in capsys.readouterr().err


def write_pairs(path: Path, *pairs: tuple[str, str, str]) -> None:
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_data_check_exit_codes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "good.jsonl", ("Why?", "So.", "No."), ("How?", "Thus.", "Hm."))
    write_pairs(tmp_path / "bad.jsonl", ("Why?", "So.", "No."), ("How?", "Same.", "Same."))
    assert align(monkeypatch, "data", "check", str(tmp_path / "good.jsonl")) == 0
    assert align(monkeypatch, "data", "check", str(tmp_path / "good.jsonl"), "--eval", str(tmp_path / "bad.jsonl")) == 1
    report = tmp_path / "report.json"
    assert align(monkeypatch, "data", "check", str(tmp_path / "bad.jsonl"), "--json", str(report)) == 1
    assert json.loads(report.read_text())["wrong"] is True
    assert json.loads(report.read_text())["rows_read"] == 2
    capsys.readouterr()
    assert align(monkeypatch, "data", "check", str(tmp_path / "goood.jsonl")) == 2
    assert "good.jsonl" in capsys.readouterr().err


def test_data_convert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "pairs.jsonl", ("Why?", "So.", "No."), ("How?", "Thus.", "Hm."))
    out = tmp_path / "out.jsonl"
    assert align(monkeypatch, "data", "convert", str(tmp_path / "pairs.jsonl"), str(out)) == 0
    assert [json.loads(line)["prompt"][0]["content"] for line in out.read_text().splitlines()] == ["Why?", "How?"]
    assert "2" in capsys.readouterr().out
    assert align(monkeypatch, "data", "convert", str(tmp_path / "pairs.jsonl"), str(out), "--to", "exmaple") == 2
    assert "did you mean example" in capsys.readouterr().err


def test_help_lists_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert align(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("train", "data", "sample", "label", "judge", "compare", "export"))
    assert "key=value" in text
