"""One contender of a benchmark in a fresh process, so that its peak memory and its threads are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from alignment.errors import UserError


def measured(
    worker: Path,
    name: str,
    job: dict[str, Any],
    console: Console,
    python: Path | None = None,
    timeout: float | None = None,
) -> Any:
    """What the program `worker`, called with JOB.json RESULT.json, writes as its result. `job` has its `threads`.

    Raises:
        UserError: it failed, with the last lines that it printed; or it took more than `timeout` seconds.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | {**dict.fromkeys(names, str(job["threads"])), "TOKENIZERS_PARALLELISM": "false"}
    environment.setdefault("CUDA_VISIBLE_DEVICES", "0")  # TRL refuses several devices in one process
    with tempfile.TemporaryDirectory() as folder, console.status(name):
        order, answer = Path(folder) / "job.json", Path(folder) / "result.json"
        order.write_text(json.dumps(job))
        command = [str(python or sys.executable), str(worker), str(order), str(answer)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise UserError(f"{name} was stopped after {timeout:.0f} s") from None
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise UserError(f"{name} ended with code {done.returncode}:\n{tail}")
        return json.loads(answer.read_text())
