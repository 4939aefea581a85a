"""`python -m alignment …` and the console script `align …`."""

from __future__ import annotations

import sys


def main() -> int:
    """`align train` goes straight to the launcher, which has its own arguments; everything else is alignment/cli.py."""
    if sys.argv[1:2] == ["train"]:
        from alignment.launch.entry import main as train

        return train(sys.argv[2:], run="align train")
    from alignment.cli import main as commands

    return commands()


if __name__ == "__main__":
    sys.exit(main())
