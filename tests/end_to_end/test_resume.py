"""SIGTERM saves and exits 143; the resumed run is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.end_to_end.data import write_pairs
from tests.launching import ROOT, environment, launch, launch_command

STEPS = 40  # 24 pairs in steps of 4: into the seventh epoch
SETTINGS = ["recipe=dpo", "model=tiny", "evaluation.prompts=0", f"training.max_steps={STEPS}", "training.batch_size=4"]
SETTINGS += ["peft.dropout=0.1", "training.learning_rate=1e-3", "training.token_budget=150"]


def arguments(tmp_path: Path, *more: str) -> list[str]:
    file = write_pairs(tmp_path / "train.jsonl")
    held_out = write_pairs(tmp_path / "test.jsonl", start=100, count=4)
    return ["train.py", *SETTINGS, f"data.path={file}", f"data.eval_path={held_out}", *more]


def rows(run: Path) -> list[dict]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def stop_after(run: Path, steps: int, program: list[str], processes: int) -> int:
    """Start, send SIGTERM to the launcher once `steps` are logged, and wait until the training process has ended."""
    process = subprocess.Popen(
        launch_command(program, processes), env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while len(rows(run)) < steps:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=120)
    while not list((run / "checkpoints").glob("checkpoint-*/complete.json")):
        assert time.monotonic() < deadline, "no checkpoint after SIGTERM"
        time.sleep(0.05)
    return code


@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_and_resumed_equals_uninterrupted(processes: int, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    done = launch(arguments(tmp_path, f"output_dir={whole}"), processes)
    assert done.returncode == 0, done.stderr[-3000:]

    code = stop_after(stopped, 4, arguments(tmp_path, f"output_dir={stopped}"), processes)
    assert code in (143, -signal.SIGTERM, 1)  # the launcher's own way to end; the training process itself exits 143
    assert not (stopped / "summary.json").exists()
    steps_done = int(os.listdir(stopped / "checkpoints")[0].removeprefix("checkpoint-"))
    assert 4 <= steps_done < STEPS

    done = launch(["train.py", f"resume={stopped}"], processes)  # the run folder remembers its configuration
    assert done.returncode == 0, done.stderr[-3000:]
    assert (stopped / "summary.json").is_file()

    expected, found = (load_file(run / "model" / "adapter_model.safetensors") for run in (whole, stopped))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    curve = [
        [(row["step"], row["loss"], row["margin"]) for row in rows(run) if "loss" in row] for run in (whole, stopped)
    ]
    assert curve[0] == curve[1] and len(curve[0]) == STEPS
