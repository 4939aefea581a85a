"""The memory estimate beside the peak of real runs, on the CPU.

    python scripts/memory.py ../shared/data/ultrafeedback_subset/train.jsonl.gz --json memory.json

Every run and every estimate is a fork of one process that has imported everything, so the libraries are in neither: a
run's peak is the most resident memory that the kernel saw (VmHWM), less what was resident at the fork. What the C
library holds back of freed blocks would be in it, too: glibc is told to return blocks of 64 KB and more at once
(MALLOC_MMAP_THRESHOLD_), unless --malloc default. docs/launching.md has the table.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
COMMON = ["data.max_prompt_length=512", "data.max_completion_length=512", "training.batch_size=2"]
COMMON += ["training.token_budget=1024", "training.max_steps=2", "evaluation.prompts=0", "data.limit=40"]
SHORT = ["training.token_budget=512", "data.max_prompt_length=128", "data.max_completion_length=192"]
SAMPLES = ["rollout.prompts=2", "rollout.epochs=1", "rollout.completions=2", "rollout.max_new_tokens=32"]
RUNS = {
    "DPO, LoRA, shared": ["recipe=dpo"],
    "DPO, LoRA, padded": ["recipe=dpo", "training.layout=padded"],
    "DPO, LoRA, shared, gradient checkpointing": ["recipe=dpo", "training.gradient_checkpointing=true"],
    "DPO, all weights, float32, frozen reference": ["recipe=dpo", "peft=none", "training.bf16=false", *SHORT],
    "P3O, LoRA, sampling": ["recipe=p3o", *SAMPLES],
    "reward model, LoRA": ["recipe=reward"],
}


def main(
    data: Annotated[str, typer.Argument(help="Preference pairs, best with long answers.")],
    model: Annotated[str, typer.Option(help="A built-in's name, folder, hub id or GGUF file.")] = "smollm2-135m",
    only: Annotated[str | None, typer.Option(help="Runs whose name holds this text.")] = None,
    malloc: Annotated[
        str, typer.Option(help="returned: freed blocks go back at once; default: as glibc does.")
    ] = "returned",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Estimate and measured peak of a few runs, and their ratio."""
    if malloc == "returned" and not RETURNED.items() <= os.environ.items():
        sizes = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | RETURNED | sizes)
    from rich.console import Console
    from rich.table import Table

    import alignment.memory  # noqa: F401  everything is imported before the fork
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    rows = []
    for name, overrides in RUNS.items():
        if only is None or only in name:
            words = [*overrides[:1], f"model={model}", f"data.path={data}", *COMMON, *overrides[1:]]
            row = {"run": name, "overrides": words, "malloc": malloc, **forked(estimated, words), **forked(run, words)}
            row["ratio"] = row["estimate_mb"] / row["peak_mb"]
            row["ratio_with_libraries"] = row["total_mb"] / (row["peak_mb"] + row["base_mb"])
            rows.append(row)
            print(f"{name}: estimate {row['estimate_mb']:.0f} MB, peak {row['peak_mb']:.0f} MB", flush=True)
            if json_file:
                json_file.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table("run", "estimate (MB)", "measured (MB)", "ratio", "with libraries")
    for row in rows:
        sizes = (f"{row[name]:.0f}" for name in ("estimate_mb", "peak_mb"))
        table.add_row(row["run"], *sizes, f"{row['ratio']:.2f}", f"{row['ratio_with_libraries']:.2f}")
    Console().print(table)


def forked(function: Any, words: list[str]) -> dict[str, Any]:
    """`function(words)` in a fork of this process."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: there.send(function(words)))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise SystemExit(f"error: {' '.join(words)} failed") from None
    finally:
        process.join()


def configured(words: list[str]) -> Any:
    from alignment.launch.compose import Composer
    from alignment.models.precision import settle

    config = Composer.create().config(words)
    settle(config)
    return config


def estimated(words: list[str]) -> dict[str, Any]:
    """Of one run, without the libraries, in MB (10^6 bytes)."""
    from alignment.memory import estimate

    found = estimate(configured(words))
    parts = {name: value / 1e6 for name, value in vars(found).items() if isinstance(value, int)}
    parts |= {name: getattr(found, name) / 1e6 for name in ("training", "while_sampling", "loading")}
    total = {"estimate_mb": (found.total - found.runtime) / 1e6, "total_mb": found.total / 1e6}
    return {**total, "parts_mb": parts, "notes": found.notes}


def run(words: list[str]) -> dict[str, Any]:
    """Train, and see what it took."""
    from alignment.launch.training_run import METHODS

    base, started, shapes = resident("VmRSS"), time.process_time(), []
    config = configured(words)
    with tempfile.TemporaryDirectory() as folder:
        trainer = METHODS[config.method](config=config, folder=Path(folder))
        loaded = resident("VmHWM") - base
        compute = trainer.compute

        def noted(model: Any, units: Any, batch: Any) -> Any:
            shapes.append(tuple(batch.input_ids.shape))
            return compute(model, units, batch)

        trainer.compute = noted
        trainer.train()
    return {
        "peak_mb": resident("VmHWM") - base,
        "base_mb": base,
        "loaded_mb": loaded,
        "layout": trainer.layout,
        "dtype": config.model.dtype,
        "bf16": config.training.bf16,
        "largest": max(shapes, key=lambda shape: shape[0] * shape[1]),
        "processor_seconds": time.process_time() - started,
    }


def resident(name: str) -> float:
    """VmRSS or VmHWM of this process, in MB (10^6 bytes)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024 / 1e6


if __name__ == "__main__":
    typer.run(main)
