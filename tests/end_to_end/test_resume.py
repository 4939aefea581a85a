"""A run that was stopped, by SIGTERM or SIGKILL, and goes on is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("resume")
    write_pairs(made / "train.jsonl")
    write_pairs(made / "test.jsonl", start=100, count=4)
    return made


@pytest.fixture(scope="module")
def uninterrupted(folder: Path) -> Callable[[int], Path]:
    """The run folder of the uninterrupted run on so many processes, made once for all tests."""

    def run(processes: int) -> Path:
        made = folder / f"whole-{processes}"
        if not made.exists():
            done = launch(arguments(folder, made), processes, RECORD=str(made / "record"))
            assert done.returncode == 0, done.stderr[-3000:]
        return made

    return run


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


@pytest.mark.parametrize("processes", [1, 2])
def test_terminated_and_resumed(
    processes: int, folder: Path, uninterrupted: Callable[[int], Path], tmp_path: Path
) -> None:
    whole, run = uninterrupted(processes), tmp_path / "run"
    stopped = launch(arguments(folder, run), processes, RECORD=str(tmp_path / "first"), STOP="terminate:4")
    # The launcher's own way to end; the training process itself exits 143.
    assert stopped.returncode in (143, -signal.SIGTERM, 1), stopped.stderr[-3000:]
    assert [checkpoint.name for checkpoint in whole_checkpoints(run)] == [f"{PREFIX}4"]
    assert not (run / "summary.json").exists()

    done = resume(run, processes, tmp_path / "second")
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps_of(tmp_path / "second") == steps_of(whole / "record", after=4)
    assert_same_end(run, whole)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed(processes: int, folder: Path, uninterrupted: Callable[[int], Path], tmp_path: Path) -> None:
    """Killed in a step of the first epoch; then, in a later one, while a checkpoint is written; then to the end."""
    whole, run = uninterrupted(processes), tmp_path / "run"
    draw = random.Random(processes)
    first = draw.randrange(SAVE + 1, EPOCH + 1)
    later = draw.randrange(EPOCH + SAVE, STEPS - SAVE, SAVE)

    save = f"training.save_steps={SAVE}"
    killed = launch(arguments(folder, run, save), processes, RECORD=str(tmp_path / "first"), STOP=f"kill:{first}")
    assert killed.returncode == -signal.SIGKILL and not (run / "summary.json").exists(), killed.stderr[-3000:]
    kept = (first - 1) // SAVE * SAVE
    assert [folder.name for folder in whole_checkpoints(run)][-1] == f"{PREFIX}{kept}"
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "los')  # a row that the kill cut short

    killed = resume(run, processes, tmp_path / "second", STOP=f"kill_save:{later}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert staging_folder(run, later).is_dir()
    newest = whole_checkpoints(run)[-1]
    assert newest.name == f"{PREFIX}{later - SAVE}"
    second = {rank: [row for row in found if row["step"] <= later] for rank, found in recorded(whole, kept).items()}
    assert steps_of(tmp_path / "second") == second
    # A checkpoint that the machine lost a part of: its manifest does not hold.
    damaged = shutil.copytree(newest, newest.with_name(f"{PREFIX}{later - 1}"))
    (damaged / "optimizer.pt").write_bytes(b"")

    done = resume(run, processes, tmp_path / "third")
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps_of(tmp_path / "third") == recorded(whole, later - SAVE)
    assert_same_end(run, whole)
    assert not list((run / "checkpoints").glob(".writing-*"))


def recorded(whole: Path, after: int) -> dict[str, list[dict]]:
    found = steps_of(whole / "record", after)
    assert found and all(rank_rows[-1]["step"] == STEPS for rank_rows in found.values())
    return found
