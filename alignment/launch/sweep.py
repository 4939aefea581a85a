"""`-m`: one fresh process for each job of a sweep, one after the other, and a table at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import alignment
from alignment.config import RunConfig
from alignment.launch.folders import new_folder, safe_name
from alignment.launch.processes import Peers

POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0  # between a polite and a hard end of a job that waits for a dead partner
TERMINATED = 143
NOT_STARTED = -1


@dataclass
class Job:
    """One run of a sweep."""

    overrides: list[str]  # what the process gets, without its folder
    differs: list[str]  # those that differ between the jobs
    folder: Path | None  # None off rank 0: rank 0 tells the run's processes the folder
    code: int = NOT_STARTED


def plan(jobs: Sequence[list[str]], configs: Sequence[RunConfig], on_rank_0: bool) -> list[Job]:
    """The jobs with their folders <sweep folder>/<number>_<override>…; `output_dir` names the sweep folder."""
    folders: list[Path] | list[None] = _folders(jobs, configs) if on_rank_0 else [None] * len(jobs)
    return [
        Job([o for o in overrides if not o.startswith("output_dir=")], _differing(overrides, jobs), folder)
        for overrides, folder in zip(jobs, folders, strict=True)
    ]


def _folders(jobs: Sequence[list[str]], configs: Sequence[RunConfig]) -> list[Path]:
    given = {config.output_dir for config in configs}
    recipes = {config.recipe for config in configs}
    if len(given) > 1:  # each job names its own
        return [Path(str(config.output_dir)) for config in configs]
    output_dir = given.pop()
    if output_dir:
        root = Path(output_dir)
    else:
        root = new_folder(Path("outputs") / (safe_name(recipes.pop()) if len(recipes) == 1 else "sweep"))
    return [root / safe_name("_".join([str(n), *_differing(job, jobs)])) for n, job in enumerate(jobs)]


def _differing(job: list[str], jobs: Sequence[list[str]]) -> list[str]:
    """The overrides of one job that some other job has not; all jobs list the same keys in the same order."""
    return [o for position, o in enumerate(job) if any(other[position] != o for other in jobs)]


def command(overrides: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """The command line of one job."""
    return [sys.executable, "-m", "alignment.launch", *options, *overrides]


class Sweep:
    """Runs planned jobs; a failed one is reported and the next goes on, SIGTERM ends the running one and the sweep."""

    def __init__(self, jobs: list[Job], make_command: Callable[[list[str]], list[str]] = command) -> None:
        self.jobs = jobs
        self.make_command = make_command
        self.peers = Peers()
        self.stopping = False  # this process was asked to end the sweep
        self.ending = False  # some process was, and all have agreed
        self._launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    def run(self) -> int:
        """All jobs in order. Returns the exit code of the first that failed, 143 after SIGTERM, else 0."""
        before = signal.signal(signal.SIGTERM, self._stop)
        try:
            for number, job in enumerate(self.jobs):
                self._say(f"[{number + 1}/{len(self.jobs)}] {' '.join(job.differs or job.overrides)} -> {job.folder}")
                job.code = self._run_job(number, job)
                if job.code:
                    self._say(f"[{number + 1}/{len(self.jobs)}] failed with exit code {job.code}")
                if self.ending:
                    break
        finally:
            signal.signal(signal.SIGTERM, before)
        self.peers.part()
        self._table()
        return TERMINATED if self.ending else next((job.code for job in self.jobs if job.code), 0)

    def _run_job(self, number: int, job: Job) -> int:
        package = str(Path(alignment.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, **self.peers.job_environment(number), "PYTHONPATH": path}
        overrides = list(job.overrides)
        if job.folder:
            quoted = str(job.folder).replace("'", "\\'")
            overrides.append(f"output_dir='{quoted}'")
        child = subprocess.Popen(self.make_command(overrides), env=environment)
        code = self._wait(child, number)
        self.peers.report(number, code, self.stopping)
        code, self.ending = self.peers.agreed(number, code, self.stopping)
        return code

    def _wait(self, child: subprocess.Popen[bytes], number: int) -> int:
        """The child's exit code, as a shell counts it (128 + signal)."""
        asked: float | None = None
        while child.poll() is None:
            if self._launcher is not None and os.getppid() != self._launcher:
                self.stopping = True  # `accelerate launch` with one process dies of SIGTERM without passing it on
            try:
                abandoned = self.peers.failed_elsewhere(number)
                if (self.stopping or abandoned) and asked is None:
                    asked = time.monotonic()
                    child.terminate()
                if abandoned and asked is not None and time.monotonic() - asked > GRACE_SECONDS:
                    child.kill()  # it waits for a partner that is gone, and cannot agree to stop
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:  # the terminal has sent it to the child as well
                child.wait()
                raise
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _say(self, line: str) -> None:
        if self.peers.rank == 0:
            print(line, flush=True)

    def _table(self) -> None:
        if self.peers.rank:
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("job", "overrides", "run folder", "exit code", box=None, title="sweep", title_justify="left")
        for number, job in enumerate(self.jobs):
            code = "not started" if job.code == NOT_STARTED else str(job.code)
            table.add_row(str(number), Text(" ".join(job.differs)), Text(str(job.folder), overflow="fold"), code)
        Console().print(table)
