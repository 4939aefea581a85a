"""scripts/improve.py: an improver against its baselines on `tiny`, what its files hold, and that it goes on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "improve.py"
if not SCRIPT.is_file():
    pytest.skip("the scripts are not part of an installed wheel", allow_module_level=True)

GIVEN = ["--improver", "tiny", "--gap", "plain_words", "--data", "everyday", "--limit", "6", "--rounds", "2"]
GIVEN += ["--max-new-tokens", "8", "--dtype", "float32"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("improve_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["improve.py", *map(str, arguments)])
    try:
        return script.main()
    except SystemExit as end:
        return int(end.code or 0)


def test_ways_are_compared_at_their_cost_and_the_work_goes_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures, picture = tmp_path / "out.jsonl", tmp_path / "figures.jsonl", tmp_path / "plot.png"
    first = ["--out", out, *GIVEN, "--temperatures", "0.8", "--ways", "improver,self_refine"]
    assert run(script, monkeypatch, *first) == 0 and len(out.read_text().splitlines()) == 2
    assert capsys.readouterr().out == ""  # no score was asked for
    kept = out.read_text()
    scored = ["--score", "length", "--score", "plain_words", "--json", figures, "--plot", picture]
    more = [
        "--out",
        out,
        *GIVEN,
        "--temperatures",
        "0.8,1",
        "--ways",
        "improver,self_refine,best_of_n,resample",
        *scored,
    ]
    assert run(script, monkeypatch, *more) == 0
    said = capsys.readouterr()
    assert out.read_text().startswith(kept) and "improver at temperature 0.8" not in said.err
    assert said.out.count("| 0.8 | self_refine |") == 2 and "length: win − lose" in said.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 8 and all(len(row["answers"]) == 6 for row in rows)
    start = [answer["texts"][0] for answer in rows[0]["answers"]]
    assert all([answer["texts"][0] for answer in row["answers"]] == start for row in rows)  # all from the same answers
    by_job = {(row["way"], row["temperature"]): row["answers"] for row in rows}
    for mine, rival in zip(by_job["best_of_n", 1.0], by_job["improver", 1.0], strict=True):
        spent, budget = mine["drawn"][2], rival["drawn"][2]
        assert mine["candidates"] >= 1 and abs(spent - budget) <= max(8, budget)
    found = [json.loads(line) for line in figures.read_text().splitlines()]
    assert len(found) == 2 * (8 * 2 + 6)  # two rounds of each, and three ways against the improver, for each score
    for row in found:
        assert row["difference"] == pytest.approx(row["win"] - row["lose"]) and row["answers"] == 6
    last = [row for row in found if row["way"] == "improver" and row["round"] == 2 and row["score"] == "plain_words"]
    assert all(row["lose"] == 0 for row in last)  # the gap is the score's own difference


def test_what_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    assert run(script, monkeypatch, "--out", out, *GIVEN, "--ways", "best_of_n") == 2
    assert "name improver before it" in capsys.readouterr().err
    assert run(script, monkeypatch, "--out", out, *GIVEN, "--score", "lenght") == 2
    assert "did you mean length" in capsys.readouterr().err
    assert run(script, monkeypatch, "--out", out, *GIVEN, "--ways", "magic") == 2
    out.write_text(json.dumps({"improver": "other"}) + "\n")
    assert run(script, monkeypatch, "--out", out, *GIVEN) == 2
    assert "was made with improver=other, not tiny" in capsys.readouterr().err
