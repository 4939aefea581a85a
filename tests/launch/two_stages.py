"""A method of two stages for tests, and train.py with it: a file of lines, then two training runs, one after the other.

STOP=lines: SIGKILL to the launcher and to every process while the file is made. The rest is as of recorded_run.py, and
its steps count in each training run anew.
"""

from __future__ import annotations

import copy
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.end_to_end import recorded_run

LINES = 6


def two_stages(stages: Any) -> None:
    """As alignment/launch/cut_online.py is one."""
    made = stages.step("lines.jsonl", lambda out: lines(stages, out))
    own = copy.deepcopy(stages.config)
    own.method = "dpo"
    stages.train("1-first", own)
    own.peft.path, own.reference.kind = str(stages.folder / "1-first" / "model"), "adapter_off"
    summary = stages.train("2-second", own)
    stages.finish({**summary, "lines": made}, [], ["1-first", "2-second"])


def lines(stages: Any, out: Path) -> dict[str, int]:
    """A file of LINES lines, each made by one of the processes, as `sample_file` does it."""
    processes = stages.processes
    file = processes.file(out, {"lines": LINES})
    try:
        for first in range(file.batches, LINES, processes.size):
            mine = first + processes.rank
            if mine >= 3 and os.environ.get("STOP") == "lines":
                recorded_run.kill()
            for number in processes.gathered([mine] if mine < LINES else []):
                file.add([{"line": number}], Counter(lines=1))
            processes.after_batch()
    finally:
        file.close()
    return dict(file.totals)


def register() -> None:
    """Make method=two_stages known."""
    from alignment.launch import run

    run.STAGED["two_stages"] = two_stages


if __name__ == "__main__":
    register()
    sys.exit(recorded_run.main())
