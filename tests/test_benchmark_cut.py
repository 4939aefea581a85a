"""`scripts/benchmark.py cut` on the tiny model: all contenders take the same steps, and the JSON keeps its contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import UserError
from scripts import _benchmark_cut_worker as worker
from scripts._benchmark_cut import CONTENDERS, cut, prepare, row_of
from scripts._benchmark_dpo import Clock


def test_every_contender_takes_the_same_steps() -> None:
    folder, records = prepare("tiny", "planted", "train", 8, satisfactory=0.5, limit=256, seed=0)
    kinds = [record["satisfactory"] for record in records]
    assert 0 < sum(kinds) < len(kinds) == 8
    job = {"model": folder, "records": records, "steps": 2, "batch_size": 4, "seed": 0, "limit": 256}
    losses, encoded = {}, {}
    for name in CONTENDERS:
        clock = Clock()
        run = worker.ours if name.startswith("ours") else worker.two_streams
        losses[name] = run(job | {"contender": name}, clock)
        encoded[name] = sum(clock.tokens)
        assert len(clock.seconds) == 2
    for name, values in losses.items():
        assert values == pytest.approx(losses["ours-shared"], abs=2e-5), name
    assert encoded["ours-shared"] < encoded["two-streams-lean"] < encoded["two-streams"]


def test_the_command_writes_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(program: Path, name: str, job: dict[str, Any], console: Any) -> dict[str, Any]:
        assert program == worker_file and job["contender"] == name and len(job["records"]) == 8
        return {"losses": [1.0, 0.5], "seconds": [9.0, 2.0], "encoded": [10, 20], "peak_memory_mb": 100.0}

    worker_file = Path(str(worker.__file__))
    monkeypatch.setattr("scripts._benchmark_cut.measured", measured)
    settings: dict[str, Any] = {"model": "tiny", "data": "planted", "split": "train", "steps": 2, "batch_size": 4}
    settings |= {"satisfactory": 0.25, "limit": 256, "threads": 1, "rounds": 2, "seed": 0}
    cut(**settings, only="ours-shared,two-streams", json_file=tmp_path / "cut.json")
    rows = json.loads((tmp_path / "cut.json").read_text())
    assert [row["name"] for row in rows] == ["ours-shared", "two-streams"]
    assert rows[0]["step_seconds"] == 2.0 and rows[0]["seconds"] == [2.0, 2.0] and rows[0]["encoded_tokens"] == 30
    with pytest.raises(UserError, match="unknown contender 'ours'"):
        cut(**settings, only="ours", json_file=None)
    with pytest.raises(UserError, match="judged answers that fit"):
        cut(**{**settings, "steps": 10_000}, only=None, json_file=None)
    assert row_of("ours-shared", [{**rows[0], "seconds": [9, 1], "encoded": [1]}])["step_seconds"] == 1
