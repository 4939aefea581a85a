"""A run that was stopped, by SIGTERM or SIGKILL, and goes on is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignment.trainers.checkpoints import PREFIX, staging_folder, whole_checkpoints
from tests.end_to_end.data import write_pairs
from tests.launching import launch

STEPS, EPOCH, SAVE = 24, 6, 2  # 24 pairs in steps of 4: four epochs of 6 steps, and a checkpoint every other step
SETTINGS = ["recipe=dpo", "model=tiny", "evaluation.prompts=0", f"training.max_steps={STEPS}", "training.batch_size=4"]
SETTINGS += ["peft.dropout=0.1", "training.learning_rate=1e-3", "training.token_budget=150"]
PROGRAM = "tests/end_to_end/recorded_run.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "given"
    write_pairs(made / "train.jsonl")
    write_pairs(made / "test.jsonl", start=100, count=4)
    return made


def uninterrupted(folder: Path, processes: int) -> Path:
    """The run folder of an uninterrupted run, with its record in it."""
    made = folder / f"whole-{processes}"
    done = launch(arguments(folder, made), processes, RECORD=str(made / "record"))
    assert done.returncode == 0, done.stderr[-3000:]
    return made


def arguments(folder: Path, run: Path, *more: str) -> list[str]:
    data = [f"data.path={folder / 'train.jsonl'}", f"data.eval_path={folder / 'test.jsonl'}"]
    return [PROGRAM, *SETTINGS, *data, f"output_dir={run}", *more]


def resume(run: Path, processes: int, record: Path, **changes: str) -> subprocess.CompletedProcess:
    """Go on, as a user would: the run folder remembers its configuration."""
    return launch([PROGRAM, f"resume={run}"], processes, RECORD=str(record), **changes)


def rows(run: Path) -> list[dict]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def steps_of(record: Path, after: int = 0) -> dict[str, list[dict]]:
    """{process: [{step, ids of its examples, loss}, …]} of the steps behind `after`."""
    found = {}
    for file in sorted(record.glob("rank-*.jsonl")):
        found[file.stem] = [row for row in map(json.loads, file.read_text().splitlines()) if row["step"] > after]
    return found


def assert_same_end(run: Path, whole: Path) -> None:
    expected, found = (load_file(folder / "model" / "adapter_model.safetensors") for folder in (whole, run))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    curves = [
        [(row["step"], row["loss"], row["margin"]) for row in rows(folder) if "loss" in row] for folder in (whole, run)
    ]
    assert curves[0] == curves[1] and len(curves[0]) == STEPS
    assert (run / "summary.json").is_file()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_and_resumed(processes: int, folder: Path, tmp_path: Path) -> None:
    """SIGKILL in a step of the first epoch, SIGTERM in the second, SIGKILL while a checkpoint is written; then on."""
    whole, run = uninterrupted(folder, processes), tmp_path / "run"
    draw = random.Random(processes)
    killed = draw.randrange(SAVE + 1, EPOCH + 1)
    terminated = draw.randrange(EPOCH + 1, 2 * EPOCH + 1)
    saving = draw.randrange(2 * EPOCH + SAVE, STEPS, SAVE)

    done = launch(
        arguments(folder, run, f"training.save_steps={SAVE}"),
        processes,
        RECORD=str(tmp_path / "first"),
        STOP=f"kill:{killed}",
    )
    assert done.returncode == -signal.SIGKILL and not (run / "summary.json").exists(), done.stderr[-3000:]
    kept = (killed - 1) // SAVE * SAVE
    assert newest(run).name == f"{PREFIX}{kept}"
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "los')  # a row that the kill cut short

    done = resume(run, processes, tmp_path / "second", STOP=f"terminate:{terminated}")
    # The launcher's own way to end; the training process itself exits 143.
    assert done.returncode in (143, -signal.SIGTERM, 1), done.stderr[-3000:]
    assert steps_of(tmp_path / "second") == recorded(whole, kept, terminated)
    assert newest(run).name == f"{PREFIX}{terminated}" and not (run / "summary.json").exists()

    done = resume(run, processes, tmp_path / "third", STOP=f"kill_save:{saving}")
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert steps_of(tmp_path / "third") == recorded(whole, terminated, saving)
    kept = max(saving - SAVE, terminated)
    assert staging_folder(run, saving).is_dir() and newest(run).name == f"{PREFIX}{kept}"
    # A newer checkpoint that the disk lost a part of: its manifest does not hold.
    damaged = shutil.copytree(newest(run), run / "checkpoints" / f"{PREFIX}{saving}")
    (damaged / "optimizer.pt").write_bytes(b"")

    done = resume(run, processes, tmp_path / "fourth")
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps_of(tmp_path / "fourth") == recorded(whole, kept, STEPS)
    assert_same_end(run, whole)
    assert not list((run / "checkpoints").glob(".writing-*"))


def newest(run: Path) -> Path:
    return whole_checkpoints(run)[-1]


def recorded(whole: Path, after: int, last: int) -> dict[str, list[dict]]:
    """What the uninterrupted run recorded of the steps behind `after`, up to `last`."""
    found = {
        rank: [row for row in kept if row["step"] <= last] for rank, kept in steps_of(whole / "record", after).items()
    }
    assert found and all(len(kept) == last - after for kept in found.values())
    return found
