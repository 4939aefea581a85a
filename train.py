"""Train a model on preferences: `accelerate launch train.py recipe=dpo`, or `python train.py --help`.

The story of a run (load, train, evaluate, report) reads top to bottom in alignment/launch/training_run.py; recipes/
holds what there is to run. Installed from a wheel, `align train` is this program.
"""

from __future__ import annotations

import sys

from alignment.launch.entry import main

if __name__ == "__main__":
    sys.exit(main())
