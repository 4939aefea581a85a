"""A method that is several runs one after the other, in one folder: each stage is done once, and goes on if stopped.

A method is a function that takes the `Stages` and calls `step` for what makes a file, `train` for a training run with
a folder and a configuration of its own, and at the end `finish`. On `resume=RUN` it is called again with the same
settings: what is noted in stages.json is skipped, a file that was in the making grows on, a training run goes on from
its newest whole checkpoint, and one without a checkpoint starts anew. What a method decides must therefore follow from
its settings and from what its stages gave.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from alignment.config import RunConfig
from alignment.errors import Interrupted, UserError
from alignment.evaluation.curves import METRICS
from alignment.evaluation.end_of_run import peak_memory_mb
from alignment.evaluation.files import json_lines, write_atomically
from alignment.evaluation.highlight import read_highlights, write_highlights
from alignment.evaluation.report import NAME as REPORT
from alignment.evaluation.summary import NAME as SUMMARY
from alignment.evaluation.summary import read_summary
from alignment.launch.together import Together
from alignment.launch.training_run import Launch, report, train
from alignment.trainers.checkpoints import whole_checkpoints
from alignment.trainers.same_run import FILE, write_stamp
from alignment.trainers.termination import TERMINATION

DONE = "stages.json"  # in the run folder, of the stages that are done: {name: {gave, seconds}}
BEFORE = "before.json"  # in the folder of a training run: the answers that the trained model's are compared with


class Stages:
    """The stages of one run. Every process of the launch makes the same calls.

    Args:
        config: the settings of the whole.
        folder: the run folder; stages are named by their places in it.
        launch: of the whole.

    Attributes:
        processes: to be handed to what makes a file.
    """

    def __init__(self, config: RunConfig, folder: Path, launch: Launch) -> None:
        self.config, self.folder, self.launch = config, folder.absolute(), launch
        self.processes = Together(launch.state)
        self.done: dict[str, dict[str, Any]] = self.on_first(lambda: _read(self.folder / DONE))

    def on_first(self, make: Callable[[], Any]) -> Any:
        """What `make` returns on the first process, on every one."""
        return self.processes.on_first(make)

    def say(self, text: str) -> None:
        """A line for the user."""
        self.launch.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def step(self, name: str, make: Callable[[Path], Any]) -> Any:
        """What `make` gave as it made the file `name`: now, or when it was made.

        Args:
            make: called on every process with the file's path; made again it must go on, or begin anew. What it
                returns on the first process is kept, as JSON.
        """
        return self._once(name, lambda: make(self.folder / name))

    def train(self, name: str, config: RunConfig, compared_with: str | None = None) -> dict[str, Any]:
        """The summary of the run of `config` in the folder `name`, which is trained where it is not done.

        Args:
            config: output_dir and resume are set here.
            compared_with: the training stage whose "before" is this one's too, asked the same; None asks anew.
        """
        folder = self.folder / name

        def trained() -> None:
            own = replace(config, output_dir=str(folder), resume=None)
            before = self.folder / compared_with if compared_with else None
            whole, checkpoint = self.on_first(lambda: _prepared(folder, own, before))
            if not whole:
                train(own, folder, checkpoint, self.launch, shown=False)
                gc.collect()  # a trainer and its model hold on to each other
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

        self._once(name, trained)
        return self.on_first(lambda: read_summary(folder))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, noted; or what it gave, where `name` is noted and there."""
        if self.on_first(lambda: name in self.done and (self.folder / name).exists()):
            self.say(f"{name}: done before")
            return self.done[name]["gave"]
        self.on_first(self._stamp)
        started = time.perf_counter()
        try:
            TERMINATION.raise_if_agreed(self.launch.state)
            given = make()
        except (Interrupted, UserError) as error:
            if self.done or isinstance(error, Interrupted):
                self.say(f"{name}: stopped; resume={self.folder} goes on")
            raise
        entry = {"gave": given, "seconds": time.perf_counter() - started}
        self.done[name] = self.on_first(lambda: self._noted(name, entry))
        return self.done[name]["gave"]

    def _stamp(self) -> None:
        """Settings and number of processes, for the run that goes on."""
        if not (self.folder / FILE).is_file():
            write_stamp(self.folder, self.config, [], self.launch.state.num_processes)

    def _noted(self, name: str, entry: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps({**self.done, name: entry}, indent=1)
        write_atomically(self.folder / DONE, text + "\n")
        return json.loads(text)[name]

    def finish(self, summary: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], trained: Sequence[str]) -> None:
        """Make the run folder one of a finished run, and show what came of it.

        Args:
            summary: what a training run's has, of the whole; whose run it was, steps, time and memory are added.
            samples: the rows of samples.jsonl.
            trained: training stages whose curves are the run's, one behind the other; its model is the last one's, and
                what judgments detect is shown as of the first one.
        """
        if self.launch.state.is_main_process:
            config = self.config
            whole = {"recipe": config.recipe, "method": config.method, "model": config.model.name, "seed": config.seed}
            whole |= {"steps": _join_metrics(self.folder, trained)}
            whole |= {"seconds": sum(entry["seconds"] for entry in self.done.values())}
            whole |= {"peak_memory_mb": peak_memory_mb()}
            _link_files(self.folder / trained[-1] / "model", self.folder / "model")
            if highlights := read_highlights(self.folder / trained[0]):
                write_highlights(self.folder, highlights)
            found = {**summary, **whole, "overrides": self.launch.overrides}
            report(self.folder, found, [dict(row) for row in samples], config.evaluation.shown, self.launch.console)
        self.launch.state.wait_for_everyone()


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(
            f"{file} cannot be read: remove it, and all stages that are whole are looked at again"
        ) from error


def _prepared(folder: Path, config: RunConfig, compared_with: Path | None) -> tuple[bool, Path | None]:
    """(whether the run in `folder` is whole, the checkpoint it goes on from); one that begins anew finds it empty."""
    if (folder / SUMMARY).is_file() and (folder / REPORT).is_file():  # the one behind the other, the report last
        return True, None
    checkpoints = whole_checkpoints(folder)
    if checkpoints:
        return False, checkpoints[-1]
    before = next((place / BEFORE for place in (folder, compared_with) if place and (place / BEFORE).is_file()), None)
    kept = before.read_bytes() if before else None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    if kept is not None:
        (folder / BEFORE).write_bytes(kept)
    return False, None


def _join_metrics(folder: Path, stages: Sequence[str]) -> int:
    """Write metrics.jsonl of the stages' rows, with steps that count on; the number of steps."""
    rows, steps = [], 0
    for stage in stages:
        file = folder / stage / METRICS
        found = list(json_lines(file)) if file.is_file() else []
        rows += [{**row, "step": steps + row["step"], "stage": stage} for row in found]
        steps += read_summary(folder / stage)["steps"]
    write_atomically(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
    return steps


def _link_files(source: Path, folder: Path) -> None:
    """Make `folder` the same files as `source`, without a second copy where the disk can."""

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    beside = folder.with_name(f".writing-{folder.name}")
    for place in (beside, folder):
        shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, beside, copy_function=link)
    beside.rename(folder)
