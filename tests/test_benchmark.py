"""The benchmark against TRL: all contenders take the same steps, and the JSON file keeps its contract. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from alignment.errors import UserError
from scripts._benchmark_pairs import prepare
from scripts.benchmark import CONTENDERS, chosen_contenders, name_the_fastest, row_of, useful_tokens
from tests.launching import ROOT, environment

STEPS = 3
REQUIRED = {"ours-shared", "ours-padded", "trl-default", "trl-fastest"}
FIELDS = {"name", "step_seconds", "useful_tokens_per_second", "encoded_tokens", "peak_memory_mb", "losses"}


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "dpo", "--model", "tiny", "--threads", "1"]
    return subprocess.run([*command, *arguments], env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the required contenders: 3 steps of 2 pairs out of 5, so that a pair comes round again."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("benchmark")
    # The rate is high, so that the losses leave log 2, where every contender begins.
    options = ["--steps", str(STEPS), "--pairs", "5", "--batch-size", "2", "--learning-rate", "1e-3"]
    files = ["--json", str(folder / "rows.json"), "--plot", str(folder / "losses.png")]
    done = benchmark(*options, "--only", ",".join(sorted(REQUIRED)), *files)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((folder / "rows.json").read_text())
    return {"rows": {row["name"]: row for row in rows}, "out": done.stdout, "folder": folder}


@pytest.mark.slow
def test_json_contract(run: dict[str, Any]) -> None:
    assert set(run["rows"]) >= REQUIRED
    for row in run["rows"].values():
        assert set(row) >= FIELDS
        assert len(row["losses"]) == STEPS
        assert len(row["seconds"]) == STEPS - 1  # the first step warms up
        assert row["step_seconds"] > 0 and row["useful_tokens_per_second"] > 0
        assert row["peak_memory_mb"] > 50
    assert (run["folder"] / "losses.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_same_steps(run: dict[str, Any]) -> None:
    ours = run["rows"]["ours-shared"]["losses"]
    assert ours[0] == pytest.approx(0.6931, abs=1e-3)  # policy = reference: log 2
    assert abs(ours[-1] - ours[0]) > 0.05
    for row in run["rows"].values():
        assert row["losses"] == pytest.approx(ours, abs=1e-3), row["name"]
    assert "other token ids" not in run["out"]


@pytest.mark.slow
def test_tokens_encoded(run: dict[str, Any]) -> None:
    rows = run["rows"]
    assert rows["ours-shared"]["encoded_tokens"] >= rows["ours-shared"]["useful_tokens"]
    assert rows["ours-shared"]["encoded_tokens"] < rows["ours-padded"]["encoded_tokens"]
    # Both lay out one row a completion, as long as the step's longest.
    assert rows["trl-default"]["encoded_tokens"] == rows["ours-padded"]["encoded_tokens"]


def test_medians_leave_the_warm_up_out() -> None:
    runs = [
        {"seconds": [9.0, 1.0, 4.0], "encoded": [10, 20, 30], "peak_memory_mb": 5.0, "precompute_seconds": 0.0},
        {"seconds": [9.0, 2.0, 8.0], "encoded": [10, 20, 30], "peak_memory_mb": 7.0, "precompute_seconds": 0.0},
    ]
    for one in runs:
        one["losses"] = [0.7, 0.6, 0.5]
    row = row_of(CONTENDERS[0], runs, {"dtype": "float32", "token_budget": 4096}, [100, 40, 80])
    assert row["step_seconds"] == 3.0  # of 1, 4, 2, 8
    assert row["useful_tokens_per_second"] == 20.0  # of 40/1, 80/4, 40/2, 80/8
    assert row["encoded_tokens"] == 60 and row["useful_tokens"] == 220
    assert row["peak_memory_mb"] == 7.0
    assert row["seconds"] == [1.0, 4.0, 2.0, 8.0]


def test_useful_tokens_follow_the_steps() -> None:
    rows = [{"lengths": [1, 1, 1]}, {"lengths": [10, 10, 10]}, {"lengths": [100, 100, 100]}]
    assert sorted(useful_tokens(rows, 1, 3, seed=0)) == [3, 30, 300]
    assert useful_tokens(rows, 3, 2, seed=5) == [333, 333]


def test_the_faster_candidate_is_trl_fastest() -> None:
    def table(whole: float, single: float) -> list[str]:
        times = {"ours-shared": 0.1, "trl-whole-steps": whole, "trl-single-pairs": single}
        return [row["name"] for row in name_the_fastest([{"name": n, "step_seconds": s} for n, s in times.items()])]

    assert table(2.0, 3.0) == ["ours-shared", "trl-fastest", "trl-single-pairs"]
    assert table(3.0, 2.0) == ["ours-shared", "trl-whole-steps", "trl-fastest"]
    assert name_the_fastest([{"name": "trl-whole-steps", "step_seconds": 1.0}])[0]["name"] == "trl-whole-steps"


def test_choice_of_contenders() -> None:
    chosen = chosen_contenders("ours-padded,ours-shared")
    assert [contender.name for contender in chosen] == ["ours-shared", "ours-padded"]


def test_mistakes_are_named() -> None:
    done = benchmark("--only", "ours-shraed")
    assert done.returncode == 2
    assert "did you mean ours-shared" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(UserError, match="100000 are wanted: lower --pairs or --steps"):
        prepare("tiny", "everyday", "train", 100_000, seed=0)


def test_both_sides_get_the_same_pairs() -> None:
    _, rows = prepare("tiny", "everyday", "train", 4, seed=1)
    again = prepare("tiny", "everyday", "train", 4, seed=1)[1]
    assert rows == again
    for row in rows:
        assert row["pair"]["prompt"][-1]["content"] in row["text"]["prompt"]
        for answer in ("chosen", "rejected"):
            assert row["pair"][answer][-1]["content"].strip() in row["text"][answer]
