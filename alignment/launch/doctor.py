"""What this machine has, whether it is enough for a run, and the line that starts it. Nothing is trained."""

from __future__ import annotations

import os
import platform
import shlex
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from alignment import disk
from alignment.config import RunConfig
from alignment.launch.assets import assets_root
from alignment.memory.advice import Advice, advise
from alignment.memory.estimate import Estimate, estimate
from alignment.models.loading import cache_folder
from alignment.models.precision import AUTO, has_bfloat16, settle

DISTRIBUTION = "alignment-toolkit"
NEEDED = ("torch", "transformers", "accelerate", "peft")
OPTIONAL = {
    "trl": "sampling under FSDP and DeepSpeed",
    "deepspeed": "zero2.yaml, zero3.yaml",
    "bitsandbytes": "8-bit optimisers, quantised weights",
    "vllm": "a server for judges and samples",
}
# Share of the memory from which a run that fits may still fail: estimates are within 15 %, and on a CPU the C library
# was seen to keep half as much again of what was freed.
TIGHT = {"cpu": (0.6, "tight: freed memory may be kept; MALLOC_MMAP_THRESHOLD_=65536 gives it back")}
TIGHT["cuda"] = (0.85, "tight: estimates are within 15 %")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `state`: ok, note (nothing stops the run) or wrong (it would be stopped)."""

    name: str
    value: str
    state: str = "ok"
    mend: str = ""


@dataclass(frozen=True)
class Machine:
    """Where a run would be: this machine, or one that is described."""

    gpus: int
    memory: int  # bytes of the smallest GPU; without one, of the main memory that is free

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


@dataclass
class Diagnosis:
    """All findings, and for a recipe its memory, advice and launch line."""

    findings: list[Finding]
    machine: Machine
    estimate: Estimate | None = None
    strategy: str = "ddp"
    advice: list[Advice] = field(default_factory=list)
    line: str | None = None

    @property
    def wrong(self) -> bool:
        return any(finding.state == "wrong" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"wrong": self.wrong, "findings": [asdict(finding) for finding in self.findings]}
        found["machine"] = asdict(self.machine)
        if self.estimate is not None:
            totals = {name: getattr(self.estimate, name) for name in ("training", "while_sampling", "loading", "total")}
            found["memory"] = asdict(self.estimate) | totals | {"strategy": self.strategy}
            found["advice"] = [asdict(advice) for advice in self.advice]
        return found | {"launch": self.line, "configs": str(launch_folder())}


def this_machine() -> Machine:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        return Machine(gpus, min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(gpus)))
    return Machine(0, psutil.virtual_memory().available)


def diagnose(config: RunConfig | None, words: list[str], machine: Machine | None = None) -> Diagnosis:
    """Look at the machine, and with `config` at what that run needs of it.

    Args:
        words: the overrides that `config` was composed from, for the launch line.
        machine: another one than this.

    Raises:
        UserError: what the run itself would refuse: its model, its data, its settings.
    """
    here = machine or this_machine()
    findings = [*versions(), *hardware(here)]
    if config is None:
        return Diagnosis([*findings, *places(None, 0)], here)
    if machine is not None and machine.gpus:  # elsewhere: any GPU of these years computes it
        config.model.dtype = "bfloat16" if config.model.dtype == AUTO else config.model.dtype
        config.training.bf16 = True if config.training.bf16 == AUTO else config.training.bf16
    settle(config)
    strategy = "ddp"
    processes = max(1, here.gpus)
    found = estimate(config, here.device, processes, strategy)
    if processes > 1 and found.total > here.memory:
        strategy = "fsdp2"
        found = estimate(config, here.device, processes, strategy)
    room = fits(found, here)
    advice = []
    if room.state == "wrong":
        advice = advise(config, found, here.memory, device=here.device, processes=processes, strategy=strategy)
    line = launch_line(config, words, here, strategy)
    return Diagnosis([*findings, *places(config, found.disk), room], here, found, strategy, advice, line)


def versions() -> list[Finding]:
    """Python and the libraries, against the lower bounds of the installed distribution."""
    try:
        wanted = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:  # a checkout that was never installed
        wanted = []
    bounds = {one.name: one.specifier for one in wanted if one.marker is None or one.name in OPTIONAL}
    found = [Finding("Python", platform.python_version())]
    for name in (*NEEDED, *OPTIONAL):
        try:
            has = version(name)
        except PackageNotFoundError:
            missing = Finding(name, "not installed", "note", f"only for {OPTIONAL[name]}") if name in OPTIONAL else None
            found.append(missing or Finding(name, "not installed", "wrong", f"pip install {DISTRIBUTION}"))
            continue
        low = bounds.get(name)
        if low is not None and not low.contains(Version(has), prereleases=True):
            found.append(Finding(name, has, "wrong", f"pip install '{name}{low}'"))
        else:
            found.append(Finding(name, has))
    return found


def hardware(machine: Machine) -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    bf16 = "computed in hardware" if has_bfloat16() else "emulated here, so auto precision is float32"
    found = [
        Finding("CPU cores", str(cores)),
        Finding("main memory", f"{gb(memory.total)}, {gb(memory.available)} free"),
        Finding("bfloat16", bf16),
    ]
    if not machine.gpus:
        return [*found, Finding("GPUs", "none", "note", "the CPU trains small models alone")]
    each = f"{machine.gpus} of {gb(machine.memory)}"
    if torch.cuda.is_available():
        each += f" ({torch.cuda.get_device_name(0)})"
    return [*found, Finding("GPUs", each)]


def places(config: RunConfig | None, needed: int) -> list[Finding]:
    """Whether the run's folder and the caches can be written, and whether the disk holds the checkpoints."""
    output = Path(config.output_dir if config and config.output_dir else "outputs").expanduser()
    hub = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    found = [
        _writable("output_dir", output, "output_dir=FOLDER"),
        _writable("model cache", cache_folder(), "ALIGN_CACHE=FOLDER"),
    ]
    found.append(_writable("hub cache", hub, "HF_HOME=FOLDER"))
    free = disk.free(_existing(output))
    if needed > free:
        mend = "lower training.save_total_limit, or give output_dir=FOLDER"
        return [*found, Finding("free disk", f"{gb(free)}, the checkpoints need {gb(needed)}", "wrong", mend)]
    return [*found, Finding("free disk", gb(free) + (f", the checkpoints need {gb(needed)}" if needed else ""))]


def _writable(name: str, folder: Path, mend: str) -> Finding:
    at = _existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=at):
            return Finding(name, f"{folder} can be written")
    except OSError as error:
        return Finding(name, f"{folder}: {error.strerror}", "wrong", f"give {mend}")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    whole = folder.absolute()
    return next(place for place in (whole, *whole.parents) if place.is_dir())


def fits(found: Estimate, machine: Machine) -> Finding:
    where = "each GPU" if machine.gpus > 1 else "the GPU" if machine.gpus else "the main memory that is free"
    value = f"{gb(found.total)} of {gb(machine.memory)} of {where}"
    if found.total > machine.memory:
        return Finding("memory", value, "wrong", "see below")
    if found.activations is None:
        return Finding("memory", f"{value}, without activations", "note", "try one step")
    share, mend = TIGHT[machine.device]
    if found.total > share * machine.memory:
        return Finding("memory", value, "note", mend)
    return Finding("memory", value)


def launch_folder() -> Path:
    """configs/launch of the checkout or of the installed package."""
    return assets_root() / "configs" / "launch"


def launch_line(config: RunConfig, words: list[str], machine: Machine, strategy: str) -> str:
    """The command that starts the run on `machine`."""
    name = "cpu" if not machine.gpus else "gpu" if machine.gpus == 1 else strategy
    if name == "fsdp2" and config.peft.method != "none":
        name = "fsdp2_lora"
    file = launch_folder() / f"{name}.yaml"
    beside = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    script = "train.py" if Path("train.py").is_file() else "-m alignment.launch"
    processes = f" --num_processes {machine.gpus}" if machine.gpus > 1 else ""
    return f"accelerate launch --config_file {shlex.quote(str(beside))}{processes} {script} {shlex.join(words)}"


def gb(size: float) -> str:
    """Bytes as GB (10^9)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e9:.2f} GB"
