"""Every table at smoke scale, from end to end, as a user runs it; and the parts that only the small scale has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.launch import ilf
from alignment.reproduce.cli import main
from alignment.reproduce.lab import Lab
from alignment.reproduce.tables import NAMES, cut, pit, table_named
from tests.launching import ROOT, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tables: they share their runs."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([name, "--scale", "smoke", "--out", str(folder)]) == 0
    own = folder / name
    printed, said = capsys.readouterr()
    assert "verdict" in printed and "too short" in printed and f"[1/{len(said_jobs(name))}]" in said
    rows = [json.loads(line) for line in (own / "rows.jsonl").read_text().splitlines()]
    assert [row["job"] for row in rows] == said_jobs(name)
    found = json.loads((own / f"{name}.json").read_text())
    assert found["scale"] == "smoke" and found["seeds"] == [0] and found["claims"] and found["seconds"] > 0
    assert (own / f"{name}.png").read_bytes()[:4] == b"\x89PNG" and (own / f"{name}.md").is_file()

    assert main([name, "--scale", "smoke", "--out", str(folder)]) == 0  # nothing is run again
    assert "[" not in capsys.readouterr().err and len((own / "rows.jsonl").read_text().splitlines()) == len(rows)


def said_jobs(name: str) -> list[dict[str, Any]]:
    return table_named(name).jobs(table_named(name).settings["smoke"], [0])


def test_the_script_runs_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), "--list"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "direct_alignment" in done.stdout


FEW = {"things": 10, "start_steps": 2, "steps": 1, "answers": 1, "iterations": 2, "prompts": 8}


@pytest.mark.parametrize("row", [row for row in cut.SCALES["small"]["rows"] if row != "no training"])
def test_every_row_of_cut_trains(row: str, folder: Path) -> None:
    settings = {**cut.SCALES["small"], **FEW}
    found = cut.make(Lab(folder / "rows"), settings, {"start": "chat", "row": row, "seed": 0})
    assert len(found["right"]) == 48 and all(0 <= share <= 1 for share in found["right"])


def test_where_nothing_is_refined_the_row_is_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*unused: Any) -> dict[str, int]:
        return {"refined": 0, "unchanged": 1}

    monkeypatch.setattr(ilf, "write_refined", refuse)
    lab, settings = Lab(folder / "unrefined"), {**cut.SCALES["small"], **FEW}
    rows = ("no training", "ILF-MLE")
    made = {row: cut.make(lab, settings, {"start": "chat", "row": row, "seed": 0}) for row in rows}
    assert made["ILF-MLE"]["right"] == made["no training"]["right"]
    assert made["ILF-MLE"]["nothing_refined"] and not made["no training"]["nothing_refined"]


@pytest.mark.parametrize("variant", pit.SCALES["small"]["variants"])
def test_every_variant_of_pit_trains(variant: str, folder: Path) -> None:
    settings = {**pit.SCALES["small"], **{key: pit.SCALES["smoke"][key] for key in pit.TRAINING}}
    found = pit.make(Lab(folder / "lab"), settings, {"part": "variant", "variant": variant, "seed": 0})
    assert len(found["policy"][0]) == len(found["policy"][1]) == settings["held_out"]
