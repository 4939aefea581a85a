"""A disk that is full while a checkpoint is written: one message, nothing half-written, the checkpoint before whole."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.disk import full_disk
from alignment.errors import UserError
from alignment.launch.entry import main
from alignment.trainers import same_run
from alignment.trainers.checkpoints import find_resume, whole_checkpoints
from tests.faults.runs import dpo, rows, same, weights


def full(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "optimizer.pt")


def writer(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


@pytest.mark.parametrize("error", [full, pytest.param(writer, marks=pytest.mark.slow)])
def test_the_run_ends_with_the_checkpoint_before(error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dpo(tmp_path / "whole")
    whole.train()

    run = dpo(tmp_path / "run")
    write_stamp, folder = same_run.write_stamp, tmp_path / "run"

    def writing(staged: Path, *given: Any) -> None:
        if staged.name.endswith("4"):
            error()
        write_stamp(staged, *given)

    monkeypatch.setattr(same_run, "write_stamp", writing)
    with pytest.raises(UserError) as caught:
        run.train()
    says, mend = str(caught.value).splitlines()
    assert says.startswith(
        f"cannot write the checkpoint of step 4 to {folder / 'checkpoints'}: No space left on device;"
    )
    assert says.endswith(f"MB are free; the checkpoint of step 2 is whole: resume={folder}")
    assert mend.startswith("Mend: free some space")
    assert [kept.name for kept in (folder / "checkpoints").iterdir()] == ["checkpoint-2"]

    monkeypatch.undo()
    again = dpo(folder)
    again.resume(find_resume(str(folder))[1])
    assert same(weights(again), weights(whole))
    timeless = [
        [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows(tmp_path / name)]
        for name in ("whole", "run")
    ]
    assert timeless[0] == timeless[1]


def test_before_the_first_one_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_run, "write_stamp", full)
    with pytest.raises(UserError, match="there is none before it"):
        dpo(tmp_path).train()
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit is set in a fork of this process")
@pytest.mark.parametrize("library", ["torch", "safetensors", "python"])
def test_what_the_libraries_say_of_a_real_limit(library: str, tmp_path: Path) -> None:
    """Files of more than 100 kB cannot be written in the child; it exits 0 where the error is known as a full disk."""
    from safetensors.torch import save_file

    data = {"weight": torch.zeros(100_000)}

    def write(file: str) -> None:
        if library == "torch":
            torch.save(data, file)
        elif library == "safetensors":
            save_file(data, file)
        else:
            with open(file, "wb") as stream:
                stream.write(bytes(400_000))

    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            try:
                write(str(tmp_path / "file"))
            except Exception as error:
                code = 0 if full_disk(error) else 2
                (tmp_path / "said").write_text(f"{type(error).__name__}: {error}"[:1000])
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, (tmp_path / "said").read_text() if (tmp_path / "said").exists() else status


def test_any_other_file_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("alignment.launch.run.run", full)
    assert main(["recipe=dpo", "model=tiny", f"output_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: cannot write to optimizer.pt: No space left on device\nMend: free some space; resume="
    )


def test_other_errors_are_not_of_the_disk() -> None:
    assert full_disk(OSError(errno.EACCES, "no")) is None and full_disk(ValueError("no space left on device")) is None
    assert full_disk(RuntimeError("shapes differ")) is None


def test_a_checkpoint_that_is_cut_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    """A file shorter than the manifest says, as after a crash of the machine: the one before is taken."""
    run = dpo(tmp_path)
    run.train()
    newest = whole_checkpoints(tmp_path)[-1]
    weights_file = next(newest.glob("*.safetensors"))
    os.truncate(weights_file, weights_file.stat().st_size // 2)
    assert newest.name == "checkpoint-6" and find_resume(str(tmp_path))[1].name == "checkpoint-4"
    again = dpo(tmp_path)
    again.resume(find_resume(str(tmp_path))[1])
    assert same(weights(again), weights(run)) and find_resume(str(tmp_path))[1].name == "checkpoint-6"
