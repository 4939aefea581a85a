"""scripts/faults.py: its points, its committed table, and five of its points tried again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from scripts import _faults
from tests.launching import ROOT, environment

# A SIGTERM in a step, in an evaluation, in a checkpoint and while sampling; a SIGKILL in a checkpoint.
FIVE = (16, 20, 26, 27, 33)


def test_points_are_the_same_every_time_and_spread() -> None:
    found = list(_faults.points(50, 0, _faults.places_of))
    assert found == list(_faults.points(50, 0, _faults.places_of))
    assert found[:20] == list(_faults.points(20, 0, _faults.places_of))
    signals: dict[str, set[str]] = {}
    for point in found:
        signals.setdefault(point.trainer, set()).add(point.signal)
        assert point.place in _faults.places_of(point.trainer) and 0 < point.share < 1
    assert signals.keys() == _faults.RUNS.keys() and all(len(both) == 2 for both in signals.values())
    assert {point.place for point in found} == set(_faults.PLACES)
    kinds = Counter((found[number].signal, found[number].place) for number in FIVE)
    assert len(kinds) == 5


def test_the_page_shows_the_table_that_was_made() -> None:
    rows = [json.loads(line) for line in (ROOT / "docs" / "results" / "faults.jsonl").read_text().splitlines()]
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert _faults.table(rows) in page
    assert [row["point"] for row in rows if not row["equal"]] == []


@pytest.mark.slow
def test_five_points(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "faults.py"), "--out", str(tmp_path / "faults.jsonl")]
    command += ["--points", ",".join(map(str, FIVE)), "--work", str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=550)
    rows = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert done.returncode == 0 and sorted(row["point"] for row in rows) == list(FIVE), done.stderr[-3000:] + str(rows)
    assert all(row["at"] != "never" and row["ended as it should"] and row["equal"] for row in rows)
    # Again: nothing is tried twice.
    again = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=100)
    assert again.returncode == 0 and again.stdout == ""
