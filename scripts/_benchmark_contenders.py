"""Who takes the steps of `benchmark.py dpo` and `gpu`, and on what."""

from __future__ import annotations

import dataclasses
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way of taking the same steps."""

    name: str
    side: str  # ours | trl
    settings: str  # in words
    layout: str = "padded"  # ours
    precompute: bool = False  # the reference is scored before the first step, not in each
    defaults: bool = False  # TRL's DPOConfig as it is
    micro_batch: int | None = None  # TRL: pairs of one pass; None: the whole step
    attention: str = "auto"  # ours: model.attention
    gradient_checkpointing: bool = False  # ours


FASTER = "reference precomputed, no gradient checkpointing"
CONTENDERS = [
    Contender("ours-shared", "ours", "shared layout, reference in the step", "shared"),
    Contender("ours-padded", "ours", "padded layout, reference in the step", "padded"),
    Contender("trl-default", "trl", "DPOConfig(): reference in the step, gradient checkpointing", defaults=True),
    Contender("ours-shared-precomputed", "ours", "shared layout, reference precomputed", "shared", precompute=True),
    # Which one is faster depends on the device and on how much of a whole batch is padding: both run, and the faster
    # one is called trl-fastest.
    Contender("trl-whole-steps", "trl", f"{FASTER}, the step in one pass", precompute=True),
    Contender("trl-single-pairs", "trl", f"{FASTER}, a pair a pass, accumulated", precompute=True, micro_batch=1),
]


def machine(threads: int) -> str:
    """The GPU's name; without one the processor's, and how many cores are used."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {threads} of {os.cpu_count()} CPU cores"


def installed(package: str) -> str:
    """The version of a package, empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
