"""The page of one GPU: what it says, and that the matrix runs from end to end at a small shape on a CPU. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts._benchmark_gpu import page
from tests.launching import ROOT, environment


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "gpu", *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=500)


def test_page() -> None:
    def row(part: str, name: str, seconds: float, **more: Any) -> dict[str, Any]:
        empty = dict.fromkeys(("peak_memory_mb", "precompute_seconds", "last_loss"))
        return {"part": part, "name": name, "seconds": seconds, "tokens_per_second": 1200.0, **empty, **more}

    rows = [
        row("a", "ours", 2.0, peak_memory_mb=1234.5, last_loss=0.5),
        row("a", "theirs", 4.0),
        row("b", "other", 3.0),
    ]
    lines = page(rows, ["a, third: out of memory"], "# Head\n").splitlines()
    assert "| a | ours | 2 | 1,200 | 1.00 | 1,234 |  | 0.5000 |" in lines  # against itself
    assert "| a | theirs | 4 | 1,200 | 0.50 |  |  |  |" in lines  # takes twice as long
    assert "| b | other | 3 | 1,200 | 1.00 |  |  |  |" in lines  # the first of its part
    assert lines[-1] == "- a, third: out of memory"


@pytest.mark.slow
def test_small_matrix(tmp_path: Path) -> None:
    options = ["--shape", "small", "--steps", "3", "--batch-size", "2", "--threads", "1"]
    done = gpu(*options, "--only", "ours-shared,ours,trl-whole-steps", "--out", str(tmp_path / "gpu.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())
    names = [(row["part"].split(",")[0], row["name"]) for row in rows]
    assert names == [
        ("DPO", "ours-shared"),
        ("DPO", "trl-whole-steps"),
        ("sampling", "ours"),
        ("CUT", "ours-shared"),
        ("DPO", "ours-shared"),
    ]
    losses = [row["last_loss"] for row in rows if row["part"].startswith("DPO")]
    assert losses == pytest.approx([0.693] * 3, abs=0.01)  # the rate is small, and both sides begin at log 2
    assert "Not measured" not in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_a_time_limit_is_kept_and_named(tmp_path: Path) -> None:
    done = gpu("--shape", "small", "--minutes", "0.1", "--out", str(tmp_path / "gpu.md"), "--only", "ours")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sampling, bfloat16, ours: no time was left" in (tmp_path / "gpu.md").read_text()
