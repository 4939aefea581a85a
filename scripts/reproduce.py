"""A paper's table again: the published numbers, ours, and which of its claims ours support.

python scripts/reproduce.py --list
python scripts/reproduce.py p3o --scale smoke                    # a minute: the pipeline from end to end
python scripts/reproduce.py p3o --scale small --seeds 0,1,2      # an hour on two CPU cores
python scripts/reproduce.py p3o --scale paper                    # the commands for a cluster
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from alignment.reproduce.cli import main

if __name__ == "__main__":
    sys.exit(main())
