"""Checkpoints that are whole or not there: written beside, renamed when complete, found again by our own check."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment import disk
from alignment.errors import UserError

MANIFEST = "complete.json"  # written last: the size of every other file
PREFIX = "checkpoint-"
STAGED = ".writing-"  # a checkpoint that does not count yet


def staging_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written before it counts."""
    return run / "checkpoints" / f"{STAGED}{step}"


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{PREFIX}{step}"


def publish(run: Path, step: int) -> Path:
    """Seal the staged checkpoint of `step` with its manifest and rename it into place."""
    staged, final = staging_folder(run, step), checkpoint_folder(run, step)
    sizes = {str(file.relative_to(staged)): file.stat().st_size for file in sorted(staged.rglob("*")) if file.is_file()}
    with open(staged / MANIFEST, "w") as manifest:
        json.dump({"step": step, "files": sizes}, manifest, indent=1)
        manifest.flush()
        os.fsync(manifest.fileno())
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    return final


@contextmanager
def disk_named(run: Path, step: int) -> Iterator[None]:
    """A full disk while the checkpoint of `step` is written inside: what was written is removed, and a UserError."""
    try:
        yield
    except Exception as error:
        why = disk.full_disk(error)
        if why is None:
            raise
        whole, staged = whole_checkpoints(run), staging_folder(run, step)
        needed, before = max([disk.size_of(folder) for folder in [*whole[-1:], staged]]), [step_of(f) for f in whole]
        shutil.rmtree(staged, ignore_errors=True)
        kept = f"the checkpoint of step {before[-1]} is whole: resume={run}" if before else "there is none before it"
        raise UserError(
            f"cannot write the checkpoint of step {step} to {staged.parent}: {why}; it needs about "
            f"{needed / 1e6:,.0f} MB, {disk.free(run) / 1e6:,.0f} MB are free; {kept}\n"
            "Mend: free some space, or a lower training.save_total_limit"
        ) from error


def is_whole(folder: Path) -> bool:
    """True if every file that the manifest names is there at its size."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):  # no manifest, whatever it is
        return False


@contextmanager
def readable(folder: Path, *damage: type[Exception]) -> Iterator[None]:
    """Within it, `damage`, and a pickle that is more than tensors and numbers, is a UserError about `folder`.

    Optimiser and random numbers are pickles; torch reads them without running what they name.
    """
    expected: tuple[type[Exception], ...] = (pickle.UnpicklingError, *damage)
    try:
        yield
    except expected as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"resume={folder}: a file of this checkpoint is damaged, or holds something else than a checkpoint does "
            f"({type(error).__name__}: {reason}); give an earlier checkpoint"
        ) from error


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


def whole_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = [
        folder
        for folder in (run / "checkpoints").glob(f"{PREFIX}*")
        if folder.name.removeprefix(PREFIX).isdigit() and is_whole(folder)
    ]
    return sorted(found, key=step_of)


def rotate(run: Path, keep: int, best: str | None) -> None:
    """Delete all but the `keep` newest whole checkpoints, and never the best one."""
    for folder in whole_checkpoints(run)[:-keep]:
        if best is None or folder != Path(best):
            shutil.rmtree(folder, ignore_errors=True)


def remove(run: Path, step: int) -> None:
    """Delete the checkpoint of `step`, and the folder of all where it was the only one."""
    folder = checkpoint_folder(run, step)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def remove_staged(run: Path) -> None:
    """Delete what a killed process left half-written."""
    for folder in (run / "checkpoints").glob(f"{STAGED}*"):
        shutil.rmtree(folder, ignore_errors=True)


def find_run(resume: str) -> Path:
    """The folder of `resume=`. Raises UserError where there is none."""
    folder = Path(resume).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"resume={resume}: no such run folder")
    return folder


def find_resume(resume: str) -> tuple[Path, Path]:
    """(run folder, newest whole checkpoint) for `resume=`: a run folder, or one checkpoint in it.

    Raises:
        UserError: no such folder, or no whole checkpoint in it.
    """
    folder = find_run(resume)
    if folder.name.startswith(PREFIX):
        if not is_whole(folder):
            raise UserError(
                f"resume={resume}: this checkpoint is not whole; give the run folder to take the one before"
            )
        return folder.parents[1], folder
    whole = whole_checkpoints(folder)
    if not whole:
        raise UserError(
            f"resume={resume}: no whole checkpoint in {folder / 'checkpoints'} (training.save_steps=N saves some)"
        )
    return folder, whole[-1]
