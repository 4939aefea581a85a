"""`python -m alignment.launch recipe=dpo …`: `train.py` from any folder. Sweeps start their jobs with it."""

from __future__ import annotations

import sys

from alignment.launch.entry import main

if __name__ == "__main__":
    sys.exit(main())
