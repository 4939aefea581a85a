"""`benchmark.py cut`: a step of CUT on judged answers, packed, against two padded streams as its authors' code has."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import statistics
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from alignment.errors import UserError, unknown
from scripts._benchmark_process import measured

WORKER = Path(__file__).with_name("_benchmark_cut_worker.py")
WARM_UP = 1  # steps at the start that are not timed
# name: what it is
CONTENDERS = {
    "ours-shared": "CUTTrainer, packed rows, the answers' tokens alone through the head",
    "ours-padded": "CUTTrainer, layout=padded: a row a sequence, the same head",
    "two-streams": "the authors' way: every example in both streams, padded to the longest, logits of all tokens",
    "two-streams-lean": "the same, but satisfactory examples, whose second row counts nothing, in the first alone",
}
RATIOS = [("ours-shared", "two-streams"), ("ours-shared", "two-streams-lean"), ("ours-shared", "ours-padded")]
console = Console()


def cut(
    model: Annotated[str, typer.Option(help="A built-in's name, a folder, hub id or GGUF file.")] = "smollm2-135m",
    data: Annotated[str, typer.Option(help="Judged answers.")] = "planted",
    split: Annotated[str, typer.Option(help="Of a folder, hub id or built-in set.")] = "train",
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps; the first one warms up and is not timed.")] = 7,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples of one step.")] = 8,
    satisfactory: Annotated[float, typer.Option(min=0.0, help="Satisfactory answers for each other one.")] = 0.25,
    limit: Annotated[int, typer.Option(min=1, help="Tokens of the longest prompt, and of the longest answer.")] = 512,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each contender.")] = os.cpu_count() or 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs, in turn.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of answers and their order.")] = 0,
    only: Annotated[str | None, typer.Option(help="Names of contenders, with commas between; default: all.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """A step of CUT (loss.variant=authors_code): ours, packed and padded, and two padded streams."""
    names = list(CONTENDERS) if only is None else only.split(",")
    for name in names:
        if name not in CONTENDERS:
            raise unknown("contender", name, CONTENDERS)
    folder, records = prepare(model, data, split, steps * batch_size, satisfactory, limit, seed)
    job: dict[str, Any] = {"model": folder, "records": records, "steps": steps, "batch_size": batch_size}
    job |= {"threads": threads, "seed": seed, "limit": limit}
    bad = sum(not record["satisfactory"] for record in records)
    console.print(
        f"{model}, float32, {len(records)} judged answers of {Path(data).name}, {bad} unsatisfactory, {batch_size} a "
        f"step, {steps} steps, {threads} threads\n",
        highlight=False,
    )
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            runs[name].append(measured(WORKER, name, job | {"contender": name}, console))
            seconds = statistics.median(runs[name][-1]["seconds"][WARM_UP:])
            console.print(f"round {number + 1}: {name} {seconds:.3g} s a step", highlight=False)
    rows = [row_of(name, found) for name, found in runs.items()]
    show(rows)
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


def prepare(
    model: str, data: str, split: str, count: int, satisfactory: float, limit: int, seed: int
) -> tuple[str, list[dict[str, Any]]]:
    """(folder of the model, judged answers as mappings): `count` of them whose prompt fits with its judgment."""
    from alignment.batching.judged import judged_units
    from alignment.config import DataConfig, ModelConfig
    from alignment.data.judged_view import downsample, judged
    from alignment.data.judgment_prompts import load_judgment_template
    from alignment.data.readers import load_examples
    from alignment.models.loading import load_tokenizer, resolve

    records, _ = judged(load_examples(data, split=split, seed=seed).examples)
    records, _ = downsample(records, satisfactory, seed)
    random.Random(seed).shuffle(records)
    settings = DataConfig(max_prompt_length=limit, max_completion_length=limit)
    template = load_judgment_template("chat")
    units, _ = judged_units(records, load_tokenizer(ModelConfig(path=model)), settings, template, "authors_code")
    fitting = {unit.id for unit in units}
    chosen = [record for record in records if record.id in fitting][:count]
    if len(chosen) < count:
        raise UserError(f"--data {data} has {len(chosen)} judged answers that fit, {count} are wanted: lower --steps")
    return resolve(model), [dataclasses.asdict(record) for record in chosen]


def row_of(name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [second for run in runs for second in run["seconds"][WARM_UP:]]
    return {
        "name": name,
        "what": CONTENDERS[name],
        "step_seconds": statistics.median(seconds),
        "encoded_tokens": sum(runs[0]["encoded"]),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "losses": runs[0]["losses"],
        "seconds": seconds,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table, in Markdown so that it can be pasted, and the ratios."""
    table = Table("", "step, s", "tokens encoded", "peak memory, MB", "last loss", "what it is", box=box.MARKDOWN)
    for row in rows:
        cells = f"{row['step_seconds']:.3g}", f"{row['encoded_tokens']:,}", f"{row['peak_memory_mb']:,.0f}"
        table.add_row(row["name"], *cells, f"{row['losses'][-1]:.4f}", row["what"])
    Console(width=max(console.width, 150)).print(table)
    by_name = {row["name"]: row for row in rows}
    for ours, theirs in RATIOS:
        if ours in by_name and theirs in by_name:
            a, b = by_name[ours], by_name[theirs]
            apart = max(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True))
            console.print(
                f"- {ours} against {theirs}: {b['step_seconds'] / a['step_seconds']:.2f} times as fast, "
                f"{a['peak_memory_mb'] / b['peak_memory_mb']:.2f} of the memory, losses at most {apart:.1e} apart",
                highlight=False,
            )
