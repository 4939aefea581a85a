"""Two processes that sample from one sharded model wait for each other, and none for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.launching import ROOT, environment, free_port


@pytest.mark.slow
def test_two_processes_sample_from_one_sharded_model() -> None:
    pytest.importorskip("trl")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
    ]
    done = subprocess.run(
        [*command, "-m", "tests.rollouts.in_step"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank 0" in done.stdout and "rank 1" in done.stdout
