"""train.py that also writes down what every step took and gave, and kills itself where a test asks for it.

RECORD=FOLDER: one file a process, a line a step: its number, the ids of its examples, its loss in full.
STOP=kill:N: SIGKILL to the launcher and to every process in step N, between the gradient and the update.
STOP=kill_save:N: the same while the checkpoint of step N is being written.
STOP=terminate:N: SIGTERM to the launcher in step N.
The signals come from inside because only so they meet their step, on a fast machine and on a slow one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LAUNCHER = os.getppid()  # read at once: later it may be gone, and another process in its place


def terminate() -> None:
    from alignment.trainers.termination import TERMINATION

    os.kill(LAUNCHER, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while not TERMINATION.requested() and time.monotonic() < deadline:
        time.sleep(0.01)


def kill() -> None:
    for process in (LAUNCHER, os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def main() -> int:
    from alignment.launch.entry import main as launch
    from alignment.trainers import base, checkpoints

    rank = os.environ.get("RANK", "0")
    file = Path(os.environ["RECORD"]) / f"rank-{rank}.jsonl"
    where, _, number = os.environ.get("STOP", "never:0").partition(":")
    training_step, publish = base.AlignmentTrainer.training_step, checkpoints.publish

    def recorded(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        loss = training_step(self, model, inputs, *args)
        step = self.state.global_step + 1
        file.parent.mkdir(parents=True, exist_ok=True)  # only now: a run folder must be empty at the start
        with open(file, "a") as lines:
            ids = [unit.id for unit in inputs["units"]]
            lines.write(json.dumps({"step": step, "ids": ids, "loss": float(loss)}) + "\n")
        if step == int(number) and where == "kill":
            kill()
        elif step == int(number) and where == "terminate" and rank == "0":
            terminate()
        return loss

    def interrupted(run: Path, step: int) -> Path:
        if where == "kill_save" and step == int(number):
            kill()
        return publish(run, step)

    base.AlignmentTrainer.training_step = recorded  # type: ignore[method-assign]
    checkpoints.publish = interrupted
    return launch(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
