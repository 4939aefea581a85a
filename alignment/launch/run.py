"""What `recipe=…` names, run: choose or find the folder, then one training run, or a method of several stages.

`accelerate launch train.py recipe=…` and `align train recipe=…` end up here, on every process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import PartialState
from omegaconf import OmegaConf
from rich.console import Console

from alignment.config import RunConfig
from alignment.errors import UserError, unknown
from alignment.launch.cut_online import cut_online
from alignment.launch.folders import choose_run_folder, probe_writable
from alignment.launch.ilf import ilf
from alignment.launch.pit_full import pit_full
from alignment.launch.quiet import quiet_libraries
from alignment.launch.stages import Stages
from alignment.launch.together import on_first
from alignment.launch.training_run import METHODS, Launch, train
from alignment.models.precision import settle
from alignment.trainers.checkpoints import find_resume, find_run
from alignment.trainers.same_run import check_settings
from alignment.trainers.termination import TERMINATION

# Several runs one after the other.
STAGED: dict[str, Callable[[Stages], None]] = {"cut_online": cut_online, "ilf": ilf, "pit_full": pit_full}


def run(config: RunConfig, overrides: list[str]) -> Path:
    """Train `config` to its end and report; returns the run folder.

    Raises:
        UserError: bad input of any kind; the launcher prints it and exits 2.
        Interrupted: SIGTERM; a checkpoint is saved, and there is no summary.
    """
    TERMINATION.install()
    quiet_libraries()
    state = PartialState(cpu=not torch.cuda.is_available())
    console = Console(quiet=not state.is_main_process)
    if config.method not in METHODS and config.method not in STAGED:
        raise unknown("method", config.method, [*METHODS, *STAGED])
    if config.resume and config.method == "best_of_n":
        raise UserError(f"resume={config.resume}: best of n takes no steps to go on from\nMend: run the recipe again")

    settle(config)
    folder, checkpoint = open_folder(config, state)
    console.print(
        f"[bold]{config.recipe}[/bold]  {config.model.name}  seed {config.seed}  →  {folder}", highlight=False
    )
    launch = Launch(overrides, state, console)
    if config.method in STAGED:
        STAGED[config.method](Stages(config, folder, launch))
    else:
        train(config, folder, checkpoint, launch)
    return folder


def open_folder(config: RunConfig, state: PartialState) -> tuple[Path, Path | None]:
    """(run folder, checkpoint to resume from). Rank 0 chooses and probes, before any model is loaded."""

    def opened() -> tuple[Path, Path | None]:
        checkpoint = None
        if not config.resume:
            folder = choose_run_folder(config)
        elif config.method in STAGED:
            folder = find_run(config.resume)
            check_settings(folder, config, state.num_processes, staged=True)
        else:
            folder, checkpoint = find_resume(config.resume)
            check_settings(checkpoint, config, state.num_processes)  # before a model is loaded
        probe_writable(folder)
        if not config.resume:
            config.output_dir = str(folder)
            (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
        return folder, checkpoint

    folder, checkpoint = on_first(state, opened)
    config.output_dir = str(folder)
    return folder, checkpoint
