"""The benchmark of several processes: what it launches, and what it says of a bad list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alignment.errors import UserError
from scripts import _benchmark_processes as bench
from scripts.benchmark import app


def test_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.read_layouts("1x2,2x1") == [(1, 2), (2, 1)]
    monkeypatch.setattr(bench, "cores", lambda: 6)
    monkeypatch.setattr(bench.torch.cuda, "device_count", lambda: 0)
    assert bench.read_layouts("") == [(1, 1), (1, 6), (2, 1), (4, 1)]
    for wrong in ("2", "2x", "0x1", "axb", "1x1,"):
        with pytest.raises(UserError, match="such as 1x2,2x1"):
            bench.read_layouts(wrong)


@pytest.mark.slow
def test_a_row_for_each(tmp_path: Path) -> None:
    arguments = ["processes", "--model", "tiny", "--steps", "4", "--layouts", "1x1,2x1", "--json"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "rows.json")])
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["processes"], row["threads"], row["steps_timed"]) for row in rows] == [(1, 1, 2), (2, 1, 2)]
    assert all(row["tokens_per_second"] > 0 and row["peak_memory_mb"] > 0 for row in rows)
    with pytest.raises(UserError, match="unknown recipe"):
        bench.launched(["recipe=dpoo"], 1, 1)
