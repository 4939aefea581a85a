"""Feedback over the processes of a launch says what one process says."""

from __future__ import annotations

import json
from pathlib import Path

from tests.feedback import over_two
from tests.launching import ROOT, launch


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = launch([str(ROOT / "tests/feedback/over_two.py"), str(out)], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads(Path(f"{out}.{rank}").read_text()) for rank in (0, 1)]
    one = json.loads(json.dumps(over_two.found()))
    assert one["rule"][:3] == [1.0, 2.0, 3.0] and 0 < one["counts"]["coin instead of a verdict"] < 23
    assert one["function"] == one["pieces"]
    for rank, errors in enumerate(found.pop("errors") for found in ranks):
        # Row 23 of 23 is the 12th of process 0, row 4 the 2nd of process 1.
        assert errors[0].startswith("UserError: ExactMatch: row 12 (prompt 'prompt 5')")
        assert errors[1] == (
            "ValueError: row three" if rank == 1 else "RuntimeError: feedback failed on process 1: row three"
        )
    assert ranks == [one, one]
    assert over_two.errors()[0].startswith("UserError: ExactMatch: row 23 (prompt 'prompt 5')")
