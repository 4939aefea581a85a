"""The benchmarks of large data say what they measured, on little of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts import _benchmark_data as bench
from scripts.benchmark import app


def test_imbalance_by_hand() -> None:
    lengths = [10, 20, 30, 60]
    assert bench.imbalance(lengths, [[0, 1], [2, 3]]) == 90 / 60 - 1
    row = bench.shared_out(lengths, 2, 4, 1, len)
    assert row.balanced_mean == 0  # 60 against 30 + 20 + 10
    assert row.fillers == (3 - 1) / 6  # `len`: an example, a micro-batch


def test_packing_writes_its_rows(tmp_path: Path) -> None:
    arguments = ["packing", "--model", "tiny", "--steps", "3", "--json", str(tmp_path / "rows.json")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["ranks"] for row in rows] == [2, 4, 8, 16]
    assert all(0 <= row["balanced_mean"] < row["slice_mean"] and 0 <= row["fillers"] < 1 for row in rows)


@pytest.mark.slow
def test_every_stage_of_many_pairs_runs(tmp_path: Path) -> None:
    arguments = ["data", "--pairs", "200", "--model", "tiny", "--folder", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "rows.json")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["stage"] for row in rows] == list(bench.STAGES)
    assert [row["pairs"] for row in rows] == [200, 200, 200, 128]  # two whole steps of 64 of the 180
    assert all(row["cpu_seconds"] > 0 and row["own_mb"] > 0 and row["all_mb"] > 0 for row in rows)
    assert "180 training pairs" in rows[1]["note"] and rows[1]["note"] == rows[2]["note"]
