"""The frame: rows are made once and kept whole, and a report is written from what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.errors import UserError
from alignment.evaluation.agreement import Estimate
from alignment.reproduce.claims import Claim, Finding
from alignment.reproduce.estimates import mean_of
from alignment.reproduce.plots import canvas
from alignment.reproduce.report import Report, Section, show
from alignment.reproduce.rows import Rows
from alignment.reproduce.table import Table, reproduce

MADE: list[dict[str, Any]] = []


def table(bad: int | None = None) -> Table:
    def make(lab: Any, settings: Any, job: Any) -> dict[str, Any]:
        if job["number"] == bad:
            raise RuntimeError("killed here")
        MADE.append(dict(job))
        return {"values": [job["number"] + each for each in range(settings["prompts"])]}

    def report(settings: Any, rows: list[Any]) -> Report:
        ours = mean_of([row["values"] for row in rows])
        claim = Claim("numbers | rise", "yes", "mean", above=0.0)
        below = Claim("numbers fall", "no", "mean", below=0.0)
        lines: list[list[Any]] = [["<b>\x1b[31m|", None, 3, 0.5, ours]]
        section = Section("Numbers", ["name", "published", "count", "share", "ours"], lines, note="A note.")
        return Report([Finding(claim, ours, "prompts"), Finding(below, ours)], [section], ["What differs."])

    def draw(settings: Any, rows: list[Any]) -> Any:
        figure, axes = canvas(2, 2)
        axes[0, 0].plot([row["values"][0] for row in rows])
        return figure

    return Table(
        name="toy",
        title="A toy",
        paper="None",
        settings={"smoke": {"prompts": 3}, "small": {"prompts": 5}},
        minutes={"smoke": 0.1, "small": 1},
        seeds={"smoke": (0,), "small": (0, 1, 2)},
        jobs=lambda settings, seeds: [{"number": n, "seed": seed} for seed in seeds for n in (1, 2)],
        make=make,
        report=report,
        draw=draw,
    )


def test_a_table_is_made_and_gone_on_with(tmp_path: Path) -> None:
    MADE.clear()
    said: list[str] = []
    with pytest.raises(RuntimeError, match="killed here"):
        reproduce(table(bad=2), "smoke", [0], tmp_path, said.append)
    assert MADE == [{"number": 1, "seed": 0}] and said[0].startswith("[1/2] number=1 seed=0: ")

    made, found = reproduce(table(), "smoke", [0], tmp_path, said.append)
    assert MADE == [{"number": 1, "seed": 0}, {"number": 2, "seed": 0}]  # the first one is not made again
    assert made.picture == "toy.png" and (tmp_path / "toy" / "toy.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "toy" / "toy.md").read_text()
    assert "scripts/reproduce.py toy --scale smoke --seeds 0" in page and "too short to say anything" in page
    assert r"| numbers \| rise |" in page and "| supported |" in page and "| not supported |" in page
    assert "\x1b" not in page and "<U+001B>" in page and "- What differs." in page and "![A toy](toy.png)" in page
    plain = json.loads((tmp_path / "toy" / "toy.json").read_text())
    assert [claim["verdict"] for claim in plain["claims"]] == ["supported", "not supported"]
    assert plain["sections"][0]["lines"][0][1] is None and len(plain["sections"][0]["lines"][0][4]) == 3

    reproduce(table(), "smoke", [0, 1], tmp_path, said.append)
    assert [job["seed"] for job in MADE] == [0, 0, 1, 1]  # another seed alone
    reproduce(table(), "small", [0], tmp_path, said.append)
    assert len(MADE) == 6  # other settings are other rows, in the same file
    rows = [json.loads(line) for line in (tmp_path / "toy" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and {row["settings"]["prompts"] for row in rows} == {3, 5}
    assert found.findings[0].verdict == "supported"


def test_it_can_be_read_on_a_terminal(tmp_path: Path) -> None:
    made, found = reproduce(table(), "smoke", [0], tmp_path, lambda line: None)
    console = Console(width=130, record=True, file=(tmp_path / "out.txt").open("w"))
    show(made, found, console)
    text = console.export_text()
    assert "not supported" in text and "Smoke" not in text and "Seed: 0" in text and "What differs." in text
    assert "\x1b[31m" not in text and "<b>" in text


def test_a_broken_last_line_costs_that_row_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = Rows(file)
    rows.add({"a": 1}, {"n": 1}, {"value": 0.5})
    with file.open("a") as out:
        out.write('{"job": {"n": 2}, "sett')
    again = Rows(file)
    assert again.get({"a": 1}, {"n": 1}) is not None and again.get({"a": 1}, {"n": 2}) is None
    again.add({"a": 1}, {"n": 2}, {"value": 0.7})
    found = Rows(file).get({"a": 1}, {"n": 2})
    assert found is not None and found["value"] == 0.7
    assert Rows(file).get({"a": 2}, {"n": 1}) is None


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use"):
        Rows(tmp_path / "file" / "rows.jsonl")


def test_what_was_not_measured_is_a_dash() -> None:
    claim = Claim("it is so", "said", "a share", above=0.0)
    assert Finding(claim).verdict == "not measured"
    assert Finding(claim, Estimate(0.1, -0.1, 0.3)).verdict == "not told apart"
