"""`scripts/benchmark.py rollout` on the tiny model runs, and the JSON keeps its contract."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignment.errors import UserError
from scripts import _benchmark_rollout_worker as worker
from scripts._benchmark_rollout import CONTENDERS, chosen, prepare
from tests.launching import ROOT, environment


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "trl-mixture"])
def test_contenders_make_the_tokens(name: str) -> None:
    folder, prompts = prepare("tiny", "everyday", "train", 2, limit=512, seed=0)
    assert len({len(prompt) for prompt in prompts}) == 2
    run = worker.CONTENDERS[name]({"model": folder, "dtype": "float32", "prompts": prompts, "k": 2})
    with torch.no_grad():
        assert len(worker.times(run, 5, repeats=2)) == 2  # it ends where a run makes more or fewer than 5


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path) -> None:
    file = tmp_path / "rollout.json"
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "rollout", "--model", "tiny", "--threads", "1"]
    options = ["--prompts", "2", "-k", "2", "--max-new-tokens", "5", "--only", "ours,ours-mixture-lora"]
    done = subprocess.run(
        [*command, *options, "--json", str(file)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(file.read_text())}
    assert list(rows) == ["ours", "ours-mixture-lora"]
    for row in rows.values():
        assert row["tokens"] == 20 and row["tokens_per_second"] > 0 and len(row["seconds"]) == 1


def test_choice_of_contenders() -> None:
    assert chosen(None, None) == [name for name in CONTENDERS if name != "trl-mixture"]
    assert chosen(None, Path("python")) == list(CONTENDERS)
    assert chosen("generate,ours", None) == ["ours", "generate"]
    with pytest.raises(UserError, match="unknown contender 'oours': did you mean ours"):
        chosen("oours", None)
    with pytest.raises(UserError, match="--peer PYTHON"):
        chosen("trl-mixture", None)
