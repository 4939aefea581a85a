"""Start programs of the project as a user would, on one process or two, and end them in time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch_command(program: list[str], processes: int) -> list[str]:
    """`accelerate launch …` of `program` (script and arguments) on CPU processes."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1"]
    accelerate += ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    if processes > 1:
        accelerate += ["--multi_gpu", "--main_process_port", str(free_port())]
    return accelerate + program


def environment(**changes: str) -> dict[str, str]:
    """The environment of a launched program: CPU, one thread a process, this checkout importable, hubs out of reach."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "WANDB_"))}
    base |= {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
    }
    return base | {"COLUMNS": "120", **changes}


def launch(program: list[str], processes: int = 1, timeout: int = 300, **changes: str) -> subprocess.CompletedProcess:
    """Run `program` to its end; stdout and stderr are text."""
    return subprocess.run(
        launch_command(program, processes),
        env=environment(**changes),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
