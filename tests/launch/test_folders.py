"""The run folder: never one that holds another run, and refused before any work is done."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.launch import folders
from alignment.launch.folders import choose_run_folder, new_folder, probe_writable, safe_name


def test_default_is_outputs_recipe_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = choose_run_folder(RunConfig(recipe="dpo"))
    assert folder.is_dir()
    assert folder.parent == Path("outputs/dpo")
    assert len(folder.name) == len("2026-01-31_23-59-59")


def test_same_second_gets_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noon(folders.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1, 31, 12, 0, 0)

    monkeypatch.setattr(folders, "datetime", Noon)
    names = [new_folder(tmp_path).name for _ in range(3)]
    assert names == ["2026-01-31_12-00-00", "2026-01-31_12-00-00-2", "2026-01-31_12-00-00-3"]


def test_given_folder_must_be_empty_unless_resumed(tmp_path: Path) -> None:
    config = RunConfig(output_dir=str(tmp_path / "a" / "b"))
    assert choose_run_folder(config) == tmp_path / "a" / "b"
    assert choose_run_folder(config) == tmp_path / "a" / "b"  # made, and still empty
    (tmp_path / "a" / "b" / "config.yaml").touch()
    assert choose_run_folder(config) == tmp_path / "a" / "b"  # of a run whose input was refused
    (tmp_path / "a" / "b" / "before.json").touch()
    with pytest.raises(UserError, match=r"is not empty.*resume="):
        choose_run_folder(config)
    config.resume = config.output_dir
    assert choose_run_folder(config) == tmp_path / "a" / "b"


def test_folder_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for call in (
        lambda: choose_run_folder(RunConfig(output_dir=str(tmp_path / "file" / "run"))),
        lambda: probe_writable(tmp_path / "file" / "run"),
    ):
        with pytest.raises(UserError, match="cannot write to the run folder"):
            call()


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    probe_writable(tmp_path / "run", need_mb=0)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_probe_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        probe_writable(tmp_path, need_mb=0)
    tmp_path.chmod(0o700)


def test_probe_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free=50_000_000))
    probe_writable(tmp_path, need_mb=49)
    with pytest.raises(UserError, match="50 MB free, about 51 MB needed"):
        probe_writable(tmp_path, need_mb=51)


def test_probe_quota_shows_in_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        probe_writable(tmp_path, need_mb=0)
    assert list(tmp_path.iterdir()) == []


def test_safe_name() -> None:
    assert safe_name("3_loss.beta=0.1_data.path=a/b c.jsonl") == "3_loss.beta=0.1_data.path=a_b_c.jsonl"
    assert safe_name("../..") == "run"
    assert len(safe_name("x" * 500)) == 80
