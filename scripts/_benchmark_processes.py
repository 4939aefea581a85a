"""`benchmark.py processes`: throughput and memory of one recipe on more and more processes, launched as a user does."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from alignment.data.workers import cores  # noqa: E402
from alignment.errors import UserError  # noqa: E402

WARM_UP = 2  # steps at the start that are not timed
console = Console()


def processes(
    recipe: Annotated[str, typer.Option(help="Any that trains in one stage.")] = "dpo",
    model: Annotated[str, typer.Option(help="A built-in's name, a folder or hub id.")] = "smollm2-135m",
    layouts: Annotated[
        str, typer.Option(help="PROCESSESxTHREADS of each, with commas; default: 1x1, 1xall, then 2, 4, … processes.")
    ] = "",
    steps: Annotated[int, typer.Option(min=WARM_UP + 1, help=f"Of each; the first {WARM_UP} are not timed.")] = 10,
    per_process: Annotated[int, typer.Option(min=1, help="Examples of a step, for each process.")] = 4,
    override: Annotated[list[str] | None, typer.Option("--set", help="Further NAME=VALUE of the recipe.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Tokens a second and memory of one recipe on one process, and on several (DDP), each launched on its own."""
    rows: list[dict[str, Any]] = []
    for count, threads in read_layouts(layouts):
        settings = [f"recipe={recipe}", f"model={model}", f"training.max_steps={steps}", "evaluation.prompts=0"]
        settings += [f"training.batch_size={per_process * count}", "data.eval_limit=2", *(override or [])]
        with console.status(f"{count} x {threads}"):
            rows.append({"processes": count, "threads": threads} | launched(settings, count, threads))
    console.print(f"{recipe} on {model}, {per_process} examples of a step for each process, median of the steps")
    console.print(table(rows))
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1))


def read_layouts(text: str) -> list[tuple[int, int]]:
    """(processes, threads of each) of `1x2,2x1`; by default, of as many as the machine has."""
    most = torch.cuda.device_count() or cores()
    if not text:
        doubled = [2**power for power in range(1, most.bit_length()) if 2**power <= most]
        alone = [(1, 1)] if torch.cuda.is_available() or most == 1 else [(1, 1), (1, most)]
        return alone + [(count, 1) for count in doubled]
    try:
        found = [(int(count), int(threads)) for count, threads in (each.split("x") for each in text.split(","))]
    except ValueError:
        found = []
    if not found or min(map(min, found)) < 1:
        raise UserError(f"--layouts {text}: give PROCESSESxTHREADS with commas between, such as 1x2,2x1")
    return found


def launched(settings: list[str], count: int, threads: int) -> dict[str, Any]:
    """What metrics.jsonl and summary.json of the run say.

    Raises:
        UserError: it failed, with the last lines that it printed.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1"]
    command += ["--num_processes", str(count), "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--multi_gpu", "--main_process_port", "0"] if count > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        command += [str(ROOT / "train.py"), *settings, f"output_dir={run}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
            raise UserError(f"{count} x {threads} ended with code {done.returncode}:\n{tail}")
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        summary = json.loads((run / "summary.json").read_text())
    rates = [row["tokens_per_second"] for row in metrics if "tokens_per_second" in row][WARM_UP:]
    losses = [row["loss"] for row in metrics if "loss" in row]
    return {
        "tokens_per_second": statistics.median(rates),
        "peak_memory_mb": summary["peak_memory_mb"],  # of the first process
        "steps_timed": len(rates),
        "last_loss": losses[-1],
    }


def table(rows: list[dict[str, Any]]) -> Table:
    found = Table(box=box.SIMPLE)
    for title in ("processes", "threads of each", "useful tokens/s", "times the first", "MB of a process"):
        found.add_column(title, justify="right")
    for row in rows:
        rate = row["tokens_per_second"]
        cells = (f"{rate:,.0f}", f"{rate / rows[0]['tokens_per_second']:.2f}", f"{row['peak_memory_mb']:,.0f}")
        found.add_row(str(row["processes"]), str(row["threads"]), *cells)
    return found
