"""Kill training runs at random points, resume them, and compare them with uninterrupted ones, bit for bit.

    python scripts/faults.py --out faults.jsonl              # 50 points over all trainers
    python scripts/faults.py --out faults.jsonl --table      # what is there, as Markdown

Each run is a few steps on `tiny`, one process, one thread. A point that is in the file is not tried again, so the
command may be stopped and started. Exit code 1 where a resumed run is another one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}  # before torch is imported

from scripts import _faults  # noqa: E402  found through the line above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a point; added to")
    parser.add_argument("--count", type=int, default=50, help="points")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    parser.add_argument("--points", help="the numbers of some of them, such as 0,7,21")
    parser.add_argument("--work", type=Path, help="keep the runs here; default: a folder that is removed")
    parser.add_argument("--table", action="store_true", help="make no runs, show what is there")
    arguments = parser.parse_args()
    out = arguments.out
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
    if arguments.table:
        print(_faults.table(rows))
        return 0
    done = {row["point"] for row in rows}
    chosen = {int(number) for number in arguments.points.split(",")} if arguments.points else None
    work = arguments.work or Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        every = _faults.points(arguments.count, arguments.seed, _faults.places_of)
        wanted = [p for p in every if p.number not in done and (chosen is None or p.number in chosen)]
        for point in wanted:
            places = {other.place for other in wanted if other.trainer == point.trainer}
            row = _faults.hit(point, work.absolute(), places)
            rows.append(row)
            with open(out, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    finally:
        if arguments.work is None:
            shutil.rmtree(work, ignore_errors=True)
    return int(not all(row["equal"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
