"""DPO under DeepSpeed ZeRO-3 on two CPU processes is the run on one. DeepSpeed is no dependency."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import runs
from tests.distributed.equality import difference, start
from tests.distributed.sharding import ZERO3

pytestmark = pytest.mark.slow
CASES = ["dpo.shared.lora", "dpo.padded.none"]


def test_zero3_is_the_run_on_one_process(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")  # its first start compiles an extension, which takes a minute and a C++ compiler
    runs.main(tmp_path / "whole", CASES)
    start(tmp_path / "zero3", CASES, 2, ZERO3)
    for case in CASES:
        far = difference(tmp_path / "whole" / case, tmp_path / "zero3" / case)
        assert far.loss < 1e-5 and far.weights < 1e-3 and far.logps < 1e-4, (case, far)
