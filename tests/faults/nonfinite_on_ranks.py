"""A DPO run in which the loss, or the gradient alone, is NaN on the last process in step 3; launched by its test.

python nonfinite_on_ranks.py FOLDER loss|gradient
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

from accelerate import PartialState

from tests.faults.runs import dpo, same
from tests.faults.test_nonfinite import in_steps, watched


def main(folder: Path, what: str) -> None:
    state = PartialState(cpu=True)
    steps = (3,) if state.is_last_process else ()
    before = watched(dpo(folder, in_steps(*steps, gradient_alone=what == "gradient"), max_steps=5))
    moved = [not same(one, other) for one, other in pairwise(before)]
    (folder / f"rank_{state.process_index}.json").write_text(json.dumps(moved))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
