"""Runs of every trainer on one process, on two under DDP and on two with sharded models, and how far they are apart.

Sharded is FSDP2, and where DeepSpeed is installed also ZeRO-3. `python -m tests.distributed.equality [FOLDER]` runs all
of them and prints the tables of docs/scaling.md.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.distributed import runs
from tests.distributed.sharding import FSDP2, ZERO3
from tests.launching import ROOT, environment, free_port

RESUMED_FROM = 1  # step of the checkpoint


def start(out: Path, cases: Sequence[str], processes: int, settings: dict[str, str], timeout: int = 3600) -> None:
    """Run the cases on so many processes, with FSDP2's or ZeRO-3's settings or none; AssertionError where they fail."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    command += ["--master_port", str(free_port()), "-m", "tests.distributed.runs", str(out), *cases]
    done = subprocess.run(
        command,
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def run_all(out: Path, cases: Sequence[str]) -> None:
    """`cases` in out/whole, out/ddp and out/fsdp2, and those of `runs.KEPT` resumed on another number of processes."""
    kept = [case for case in runs.KEPT if case in cases]
    runs.main(out / "whole", cases)
    start(out / "fsdp2-one", kept, 1, FSDP2)
    start(out / "ddp", [*cases, *resumed(out / "whole", kept)], 2, {})
    start(out / "fsdp2", [*cases, *resumed(out / "fsdp2-one", kept)], 2, FSDP2)
    runs.main(out / "whole", resumed(out / "ddp", kept))
    start(out / "fsdp2-one", resumed(out / "fsdp2", kept), 1, FSDP2)


def resumed(of: Path, cases: Sequence[str]) -> list[str]:
    """Arguments that go on from the runs in the folder `of`."""
    return [f"{case}={of / case / 'checkpoints' / f'checkpoint-{RESUMED_FROM}'}" for case in cases]


@dataclass(frozen=True)
class Difference:
    """Of one run from the one on one process."""

    loss: float  # the largest of any step
    weights: float  # norm of the difference of the final weights, over the norm of what training changed
    logps: float  # the largest of any token, in nats, under the trained models; 0 where they have none


def difference(whole: Path, other: Path) -> Difference:
    """`whole` and `other` are folders of the same case; `whole` is of the run on one process."""
    one, two = (json.loads((folder / "found.json").read_text()) for folder in (whole, other))
    before, after, found = weights(whole / "start"), weights(whole / "model"), weights(other / "model")
    assert before.keys() == after.keys() == found.keys(), before.keys() ^ found.keys()
    moved = distance(after, before)
    assert moved > 0 and len(one["losses"]) == runs.STEPS
    losses = [abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)]
    rows = zip(one.get("logps", []), two.get("logps", []), strict=True)
    logps = [abs(a - b) for x, y in rows for a, b in zip(x, y, strict=True)]
    return Difference(max(losses), distance(after, found) / moved, max(logps, default=0.0))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a saved model or adapter."""
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((one[name].double() - other[name].double()).square().sum()) for name in one))


def table(out: Path, cases: Sequence[str]) -> str:
    """Markdown: a row for each case, and one for each resumed run."""
    heads = "DDP: loss | weights | fully_shard: loss | weights | ZeRO-3: loss | weights"
    lines = [f"| trainer, rows, weights | {heads} |", "|---|" + "---:|" * 6]
    for case in cases:
        cells = [_cells(out, case, mode, case) for mode in ("ddp", "fsdp2", "zero3")]
        lines.append(f"| {case.replace('.', ', ').replace('none', 'all')} | {' | '.join(cells)} |")
    ways = {"1 to 2, DDP": "ddp", "2 to 1, DDP": "whole", "1 to 2, sharded": "fsdp2", "2 to 1, sharded": "fsdp2-one"}
    lines += ["", "| resumed | processes | loss | weights |", "|---|---|---:|---:|"]
    for case in (case for case in runs.KEPT if case in cases):
        for way, mode in ways.items():
            lines.append(f"| {case} | {way} | {_cells(out, case, mode, f'{case}.resumed')} |")
    return "\n".join(lines)


def _cells(out: Path, case: str, mode: str, folder: str) -> str:
    if not (out / mode / folder).is_dir():
        return "not run | not run"
    found = difference(out / "whole" / case, out / mode / folder)
    return f"{found.loss:.0e} | {found.weights:.0e}"


if __name__ == "__main__":
    os.environ |= {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        run_all(folder, runs.all_cases())
        if importlib.util.find_spec("deepspeed"):
            start(folder / "zero3", runs.all_cases(), 2, ZERO3)
        print(table(folder, runs.all_cases()))
