"""One of two processes is killed: the other ends with a line that says so, and the run goes on from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.launch.processes import lost_process
from alignment.trainers.checkpoints import find_resume
from tests.end_to_end.data import write_pairs
from tests.launching import launch

GLOO = "[../third_party/gloo/gloo/transport/tcp/pair.cc:539] Connection closed by peer [127.0.0.1]:30712"


def test_what_the_libraries_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert lost_process(RuntimeError(GLOO)) == "connection closed by peer"
    assert lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert lost_process(RuntimeError(GLOO)) is None


@pytest.mark.slow
def test_the_other_process_ends_with_a_line(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "train.jsonl")
    run = tmp_path / "run"
    given = ["recipe=dpo", "model=tiny", f"data.path={data}", "evaluation.prompts=0", "training.max_steps=8"]
    given += ["training.batch_size=4", "training.save_steps=2", f"output_dir={run}"]
    done = launch(["tests/faults/lost_process.py", *given], processes=2)
    assert done.returncode not in (0, None)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr[-3000:]
    assert lines[0].startswith("error: rank 0 has lost another process of this run (connection ")
    assert f"Mend: resume={run} goes on from its last checkpoint" in done.stderr
    assert "SIGKILL" in done.stderr  # the launcher's report names the rank and the signal
    assert find_resume(str(run))[1].name == "checkpoint-2"
    done = launch(["train.py", f"resume={run}"], processes=2)
    assert done.returncode == 0 and (run / "summary.json").is_file(), done.stderr[-3000:]
