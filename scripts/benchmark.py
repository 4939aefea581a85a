"""Speed and memory against peers, side by side in one run.

    python scripts/benchmark.py dpo --model smollm2-135m --json dpo.json --plot dpo.png
    python scripts/benchmark.py rollout --model smollm2-135m --prompts 8 -k 4 --max-new-tokens 128 --json rollout.json
    python scripts/benchmark.py cut --model smollm2-135m --data planted --json cut.json
    python scripts/benchmark.py gpu --out gpu.md
    python scripts/benchmark.py data --pairs 1000000
    python scripts/benchmark.py packing --data HH_FOLDER
    python scripts/benchmark.py processes --recipe dpo

`dpo` trains the same model on the same pairs in the same order with our DPOTrainer (shared and padded layout, reference
in the step and precomputed) and with TRL's (its defaults, and its fastest settings). `rollout` (in
_benchmark_rollout.py) samples with ours, with `generate`, and with TRL's mixture of two policies. `cut` (in
_benchmark_cut.py) takes steps of CUT packed, and as its authors do, as two padded streams. `gpu` (in _benchmark_gpu.py)
measures all of it on one GPU in under nine minutes. `data` and `packing` (in _benchmark_data.py) measure memory and
throughput of many pairs, and how evenly steps lie on ranks. `processes` (in _benchmark_processes.py) launches a recipe
on more and more processes. Every contender runs in a process of its own, one after the other. docs/benchmarks.md,
docs/rollouts.md, docs/large_data.md and docs/scaling.md say what is measured and how.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.errors import UserError, unknown  # noqa: E402
from scripts._benchmark_contenders import CONTENDERS, Contender, installed, machine  # noqa: E402
from scripts._benchmark_cut import cut  # noqa: E402
from scripts._benchmark_data import data, packing  # noqa: E402
from scripts._benchmark_gpu import gpu  # noqa: E402
from scripts._benchmark_pairs import LIMIT, prepare  # noqa: E402
from scripts._benchmark_process import measured  # noqa: E402
from scripts._benchmark_processes import processes  # noqa: E402
from scripts._benchmark_rollout import rollout  # noqa: E402

WORKER = ROOT / "scripts" / "_benchmark_dpo.py"
WARM_UP = 1  # steps at the start that are not timed
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(rollout)
app.command()(cut)
app.command()(gpu)
app.command()(data)
app.command()(packing)
app.command()(processes)
console = Console()


@app.callback()
def _benchmark() -> None:
    """Speed and memory against peers, side by side in one run."""


FASTEST = "trl-fastest"
CANDIDATES = ("trl-whole-steps", "trl-single-pairs")

RATIOS = [  # (ours, theirs)
    ("ours-shared", "ours-padded"),
    ("ours-shared", "trl-default"),
    ("ours-shared-precomputed", FASTEST),
]


def say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


class Dtype(str, enum.Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"


@app.command()
def dpo(
    model: Annotated[str, typer.Option(help="A built-in's name, a folder, hub id or GGUF file.")] = "smollm2-135m",
    data: Annotated[str, typer.Option(help="A built-in set, file, folder or hub id of preferences.")] = "everyday",
    split: Annotated[str, typer.Option(help="Of a folder, hub id or built-in set.")] = "train",
    dtype: Annotated[Dtype, typer.Option(help="Of the computation: bfloat16 is autocast.")] = Dtype.float32,
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps; the first one warms up and is not timed.")] = 9,
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs to train on; default: steps x batch size.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of one step.")] = 4,
    token_budget: Annotated[int, typer.Option(min=1, help="Ours: training.token_budget, tokens of one pass.")] = 4096,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Peak rate; AdamW, falling linearly to 0.")] = 5e-6,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each contender.")] = os.cpu_count() or 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs, in turn.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of pairs, their order, and both trainers.")] = 0,
    only: Annotated[str | None, typer.Option(help="Names of contenders, with commas between; default: all.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the loss curves, overlaid, into this PNG.")] = None,
) -> None:
    """A DPO step: ours in the shared and in the padded layout, TRL's defaults, TRL's fastest settings."""
    contenders = chosen_contenders(only)
    with console.status("reading the pairs"):
        folder, rows = prepare(model, data, split, pairs or steps * batch_size, seed)
    job = {
        "model": folder,
        "dtype": dtype.value,
        "batch_size": batch_size,
        "steps": steps,
        "token_budget": token_budget,
        "learning_rate": learning_rate,
        "threads": threads,
        "seed": seed,
        "limit": LIMIT,
        "rows": rows,
    }
    say(heading(job, model, data))
    results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            result = measured(WORKER, contender.name, job | {"contender": dataclasses.asdict(contender)}, console)
            results[contender.name].append(result)
            seconds = statistics.median(result["seconds"][WARM_UP:])
            say(f"round {number + 1}: {contender.name} {seconds:.3g} s a step")
    warn_of_other_tokens(results)
    useful = useful_tokens(rows, batch_size, steps, seed)
    table = name_the_fastest([row_of(contender, results[contender.name], job, useful) for contender in contenders])
    show(table)
    if json_file:
        json_file.write_text(json.dumps(table, indent=1) + "\n")
    if plot:
        draw(table, plot, f"DPO, {model}, {dtype.value}, {batch_size} pairs a step")


def chosen_contenders(only: str | None) -> list[Contender]:
    """The contenders that `only` names; trl-fastest stands for its candidates."""
    if only is None:
        chosen = CONTENDERS
    else:
        known = {contender.name for contender in CONTENDERS} | {FASTEST}
        names = only.split(",")
        for name in names:
            if name not in known:
                raise unknown("contender", name, known)
        wanted = {*names, *(CANDIDATES if FASTEST in names else ())}
        chosen = [contender for contender in CONTENDERS if contender.name in wanted]
    if any(contender.side == "trl" for contender in chosen) and not installed("trl"):
        raise UserError("TRL is not installed: pip install 'alignment-toolkit[trl]', or name others with --only")
    return chosen


def useful_tokens(rows: list[dict[str, Any]], batch_size: int, steps: int, seed: int) -> list[int]:
    """Tokens of each step, each prompt once and each completion once."""
    from alignment.batching.steps import StepSampler

    return [sum(sum(rows[i]["lengths"]) for i in step) for step in StepSampler(len(rows), batch_size, steps, seed)]


def row_of(contender: Contender, runs: list[dict[str, Any]], job: dict[str, Any], useful: list[int]) -> dict[str, Any]:
    """One row of the table and of the JSON file; medians are over the timed steps of all rounds."""
    timed = [pair for run in runs for pair in list(zip(run["seconds"], useful, strict=True))[WARM_UP:]]
    return {
        "name": contender.name,
        "settings": contender.settings + (f", token budget {job['token_budget']}" if contender.side == "ours" else ""),
        "dtype": job["dtype"],
        "step_seconds": statistics.median(seconds for seconds, _ in timed),
        "useful_tokens_per_second": statistics.median(tokens / seconds for seconds, tokens in timed),
        "encoded_tokens": sum(runs[0]["encoded"]),
        "useful_tokens": sum(useful),
        "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
        "precompute_seconds": statistics.median(run["precompute_seconds"] for run in runs),
        "losses": runs[0]["losses"],
        "seconds": [seconds for seconds, _ in timed],
    }


def name_the_fastest(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where both of TRL's candidates ran, the faster becomes trl-fastest; the other keeps its name."""
    candidates = [row for row in table if row["name"] in CANDIDATES]
    if len(candidates) == len(CANDIDATES):
        min(candidates, key=lambda row: row["step_seconds"])["name"] = FASTEST
    return table


def warn_of_other_tokens(results: dict[str, list[dict[str, Any]]]) -> None:
    """Say so where two contenders did not see the same token ids."""
    first, *others = results
    for name in others:
        pairs = list(zip(results[first][0]["digests"], results[name][0]["digests"], strict=True))
        differing = sum(a != b for a, b in pairs)
        if differing:
            say(f"{differing} of {len(pairs)} pairs have other token ids in {name} than in {first}")


def heading(job: dict[str, Any], model: str, data: str) -> str:
    """What was measured, where, and with which versions."""
    prompts = sum(row["lengths"][0] for row in job["rows"])
    completions = sum(sum(row["lengths"][1:]) for row in job["rows"])
    versions = ", ".join(f"{name} {installed(name)}" for name in ("torch", "transformers", "trl"))
    return (
        f"{model}, {job['dtype']}, {len(job['rows'])} pairs of {Path(data).name} "
        f"({prompts} tokens of prompts, {completions} of completions: prompts are "
        f"{prompts / (prompts + completions):.0%}), {job['batch_size']} pairs a step, {job['steps']} steps, "
        f"our token budget {job['token_budget']}\n"
        f"{machine(job['threads'])}; Python {platform.python_version()}, {versions}\n"
    )


def show(table: list[dict[str, Any]]) -> None:
    """The table, in Markdown so that it can be pasted, and the ratios."""
    columns = ["", "step, s", "useful tokens/s", "tokens encoded", "peak memory, MB", "precomputation, s", "last loss"]
    shown = Table(*columns, box=box.MARKDOWN)
    for column in shown.columns[1:]:
        column.justify = "right"
    for row in table:
        shown.add_row(
            row["name"],
            f"{row['step_seconds']:.3g}",
            f"{row['useful_tokens_per_second']:.0f}",
            f"{row['encoded_tokens']:,}",
            f"{row['peak_memory_mb']:,.0f}",
            f"{row['precompute_seconds']:.1f}" if row["precompute_seconds"] else "",
            f"{row['losses'][-1]:.4f}",
        )
    Console(width=max(console.width, 130)).print(shown)
    by_name = {row["name"]: row for row in table}
    for ours, theirs in RATIOS:
        if ours in by_name and theirs in by_name:
            a, b = by_name[ours], by_name[theirs]
            speed = b["step_seconds"] / a["step_seconds"]
            memory = a["peak_memory_mb"] / b["peak_memory_mb"]
            say(f"- {ours} against {theirs}: {speed:.2f} times as fast, {memory:.2f} of the memory")
    for row in table:
        say(f"- {row['name']}: {row['settings']}")


def draw(table: list[dict[str, Any]], file: Path, title: str) -> None:
    """Loss against step, one line a contender: thinner lines on top, since they are meant to coincide."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, row in enumerate(table):
        width = 1.5 + 1.5 * (len(table) - 1 - number)
        axes.plot(range(1, len(row["losses"]) + 1), row["losses"], label=row["name"], linewidth=width, alpha=0.8)
    apart = max(max(losses) - min(losses) for losses in zip(*(row["losses"] for row in table), strict=True))
    axes.set(xlabel="step", ylabel="loss", title=f"{title}; the curves are at most {apart:.1e} apart")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main() -> None:
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
