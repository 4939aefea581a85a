"""The scale of the paper: the recipes of recipes/paper/TABLE, whose first comments are the commands, in order."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.launch.assets import SUFFIXES, assets_root
from alignment.reproduce.lab import composer

LAUNCHERS = ("accelerate", "python", "align")  # a command begins with one of them


@dataclass(frozen=True)
class PaperRun:
    """One recipe of a paper's table: its file, and how a cluster is told to run it."""

    file: Path
    command: str  # one line

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)

    @property
    def overrides(self) -> list[str]:
        """What stands behind train.py; a sweep's values are still in one word."""
        words = self.words
        place = next((at for at, word in enumerate(words) if word.endswith("train.py") or word == "train"), -1)
        return [word for word in words[place + 1 :] if "=" in word and not word.startswith("--")]


def paper_folder(table: str) -> Path:
    """Where the recipes of a table at paper scale lie."""
    return assets_root() / "recipes" / "paper" / table


def paper_runs(table: str) -> list[PaperRun]:
    """The recipes of a table, in order.

    Raises:
        UserError: there is none, or one does not begin with its command.
    """
    folder = paper_folder(table)
    files = sorted((file for file in folder.glob("*") if file.suffix in SUFFIXES), key=_place)
    if not files:
        raise UserError(f"{table} has no recipes at paper scale: {folder} is empty")
    return [PaperRun(file, launch_line(file)) for file in files]


def _place(file: Path) -> tuple[int, str]:
    """Files are numbered: 2_dpo.yaml stands before 10_online.yaml."""
    number = file.stem.partition("_")[0]
    return int(number) if number.isdecimal() else 0, file.stem


def launch_line(file: Path) -> str:
    r"""The command that a recipe's first comment is; lines of it that end in a \ go on in the next one."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        lines.append(text.removesuffix("\\").strip())
        if not text.endswith("\\"):
            break
    command = " ".join(lines)
    if not command.startswith(LAUNCHERS):
        raise UserError(f"{file}: its first comment must be the command that runs it")
    return command


def configs(run: PaperRun) -> list[RunConfig]:
    """The checked configurations of a run, one for each job where it is a sweep."""
    return [composer().config(job) for job in composer().jobs(run.overrides)]


def lacking(run: PaperRun) -> list[str]:
    """Models and data sets that a run reads and that are not here, each once."""
    return list(dict.fromkeys(path for config in configs(run) for path in needs(config) if not is_there(path)))


def is_done(run: PaperRun) -> bool:
    """Whether every job of a run has its summary."""
    folders = [Path(config.output_dir) for config in configs(run) if config.output_dir]
    jobs = [*folders[0].glob("*/summary.json")] if len(folders) > 1 else []
    return len(jobs) >= len(folders) if len(folders) > 1 else (folders[0] / "summary.json").is_file()


def needs(config: RunConfig) -> list[str]:
    """Every path that a run reads: models and data."""
    data: Any = config.data.path if isinstance(config.data.path, (list, dict)) else [config.data.path]
    models = [config.model.path, config.reference.path, config.pit.policy, config.ilf.refiner]
    paths = [*models, config.feedback.get("path")]
    return [str(path) for path in [*paths, *data, config.data.eval_path] if path]


def is_there(path: str) -> bool:
    """A built-in's name, a file or folder, or an id in the hub's cache."""
    from alignment.data.builtin import names
    from alignment.models.loading import BUILTINS

    return path in BUILTINS or path in names() or Path(path).expanduser().exists() or _in_the_cache(path)


def _in_the_cache(path: str) -> bool:
    """Whether the hub's cache has a model or data set of this id."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = [
        Path(HF_HUB_CACHE) / f"{kind}--{path.replace('/', '--')}" / "snapshots" for kind in ("models", "datasets")
    ]
    return path.count("/") == 1 and any(folder.is_dir() and any(folder.iterdir()) for folder in folders)


def launch(table: str, say: Callable[[str], None]) -> None:
    """Print the commands, and run them in order as far as what they read is there; one that is done is not run again.

    Raises:
        UserError: something is missing, which the message names, or a command failed.
    """
    runs = paper_runs(table)
    for run in runs:
        say(run.command)
    for number, run in enumerate(runs):
        if is_done(run):
            say(f"{run.file.name}: done before")
            continue
        missing = lacking(run)
        if missing:
            so_far = f"stopped before {run.file.name}" if number else "nothing was run"
            raise UserError(
                f"{so_far}: not here are {', '.join(missing)}\n"
                f"Mend: {run.file.parent / 'README.md'} says where they come from (hf download NAME fetches a model); "
                "the same command goes on"
            )
        done = subprocess.run(run.words, check=False)
        if done.returncode:
            raise UserError(f"{run.file.name} ended with exit code {done.returncode}: {run.command}")
