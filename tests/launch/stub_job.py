"""Stands in for a training process in sweep tests: notes how it was started, and ends as its seed says."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

overrides = dict(argument.split("=", 1) for argument in sys.argv[2:])
rank = os.environ.get("RANK", "0")
note = {"overrides": sys.argv[2:], "port": os.environ.get("MASTER_PORT"), "pid": os.getpid()}
(Path(sys.argv[1]) / f"rank{rank}-seed{overrides['seed']}.json").write_text(json.dumps(note))

behaviour = overrides.get("recipe")
if behaviour == "terminates" or (behaviour == "terminates_rank1" and rank == "1"):
    os.kill(os.getppid(), signal.SIGTERM)  # as a cluster would end the sweep
    time.sleep(60)
if behaviour == "terminates_rank1":
    time.sleep(60)
if behaviour == "rank1fails" and overrides["seed"] == "0":
    if rank == "1":
        sys.exit(7)
    time.sleep(60)  # waits for its partner
sys.exit(3 if overrides["seed"] == "13" else 0)
