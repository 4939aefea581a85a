"""Checkpoints are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.trainers.checkpoints import find_resume, is_whole, publish, rotate, staging_folder, whole_checkpoints


def write(run: Path, step: int) -> Path:
    staged = staging_folder(run, step)
    (staged / "sub").mkdir(parents=True)
    (staged / "weights.bin").write_bytes(b"x" * 100)
    (staged / "sub" / "state.json").write_text("{}")
    return publish(run, step)


def test_published_is_whole_and_the_newest_is_resumed(tmp_path: Path) -> None:
    for step in (5, 10, 20):
        write(tmp_path, step)
    assert [folder.name for folder in whole_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-10", "checkpoint-20"]
    assert find_resume(str(tmp_path))[1].name == "checkpoint-20"
    assert find_resume(str(tmp_path / "checkpoints" / "checkpoint-5")) == (
        tmp_path,
        tmp_path / "checkpoints" / "checkpoint-5",
    )


@pytest.mark.parametrize("damage", ["cut", "lost", "no manifest", "broken manifest"])
def test_a_damaged_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    write(tmp_path, 5)
    newest = write(tmp_path, 10)
    if damage == "cut":
        (newest / "weights.bin").write_bytes(b"x" * 99)
    elif damage == "lost":
        (newest / "sub" / "state.json").unlink()
    elif damage == "no manifest":
        (newest / "complete.json").unlink()
    else:
        (newest / "complete.json").write_text('{"step": 10, "fil')
    assert not is_whole(newest)
    assert find_resume(str(tmp_path))[1].name == "checkpoint-5"
    with pytest.raises(UserError, match="not whole"):
        find_resume(str(newest))


def test_a_staged_one_does_not_count(tmp_path: Path) -> None:
    staging_folder(tmp_path, 5).mkdir(parents=True)
    with pytest.raises(UserError, match="no whole checkpoint"):
        find_resume(str(tmp_path))
    with pytest.raises(UserError, match="no such run folder"):
        find_resume(str(tmp_path / "elsewhere"))


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    best = write(tmp_path, 5)
    for step in (10, 15, 20):
        write(tmp_path, step)
    rotate(tmp_path, keep=2, best=str(best))
    assert [folder.name for folder in whole_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-15", "checkpoint-20"]
