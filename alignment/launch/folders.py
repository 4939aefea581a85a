"""The run folder: which one, and whether it can be written, before a model is loaded."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from alignment.config import RunConfig
from alignment.errors import UserError

PROBE_BYTES = 1 << 20  # written for real: a quota shows only then


def choose_run_folder(config: RunConfig) -> Path:
    """The folder of this run, made: `output_dir` where given, else a new outputs/<recipe>/<time>.

    To be called on rank 0 alone, since the time differs between processes.

    Raises:
        UserError: `output_dir` holds something already and nothing is resumed, or it cannot be made.
    """
    if not config.output_dir:
        return new_folder(Path("outputs") / safe_name(config.recipe))
    folder = Path(config.output_dir).expanduser()
    # These alone are what a run leaves behind whose input was refused.
    left = {"config.yaml", "run.json"}
    if not config.resume and folder.is_dir() and any(entry.name not in left for entry in folder.iterdir()):
        raise UserError(f"output_dir={folder} is not empty: choose another folder, or go on with resume={folder}")
    return _made(folder)


def new_folder(parent: Path) -> Path:
    """A new folder `parent`/<YYYY-MM-DD_HH-MM-SS>, with -2, -3 … behind it where several start in one second."""
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    _made(parent)
    for count in range(1, 1000):
        folder = parent / (time if count == 1 else f"{time}-{count}")
        try:
            folder.mkdir()  # atomic: of two runs only one gets the name
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise _refused(folder, error) from error
    raise UserError(f"no free folder name under {parent}: give output_dir=FOLDER")


def probe_writable(folder: Path, need_mb: float = 200.0) -> None:
    """Writes and removes a small file in `folder`, and compares the free space with `need_mb` megabytes.

    Raises:
        UserError: no permission, a read-only or full disk, or too little space.
    """
    _made(folder)
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < need_mb:
        raise UserError(
            f"not enough space for the run folder {folder}: {free_mb:,.0f} MB free, about {need_mb:,.0f} MB needed; "
            "free some, or give output_dir=FOLDER on another disk"
        )
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(os.urandom(PROBE_BYTES))  # random, since a compressing file system takes zeros for nothing
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _refused(folder, error) from error


def safe_name(text: str, longest: int = 80) -> str:
    """`text` as one folder name that needs no quoting in a shell."""
    return re.sub(r"[^A-Za-z0-9._=+,-]+", "_", text)[:longest].strip("._") or "run"


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error
    return folder


def _refused(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write to the run folder {folder}: {error.strerror or error}; give output_dir=FOLDER elsewhere"
    )
