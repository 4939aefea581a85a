"""train.py whose rank 1 kills itself in step 3, before the update: what is left to rank 0 is to say so."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def main() -> int:
    from alignment.launch.entry import main as launch
    from alignment.trainers import base

    training_step = base.AlignmentTrainer.training_step

    def stepping(self: Any, *given: Any) -> Any:
        if self.state.global_step == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, *given)

    base.AlignmentTrainer.training_step = stepping  # type: ignore[method-assign]
    return launch(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
