"""`benchmark.py data`: many pairs through check, preparation and packing, with memory and throughput; and
`benchmark.py packing`: how evenly a step's tokens are shared out over ranks."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from alignment.batching.microbatch import cut_by_tokens, groups_of  # noqa: E402
from alignment.batching.packing import LAYOUTS, pack  # noqa: E402
from alignment.batching.steps import StepSampler, balanced  # noqa: E402
from alignment.batching.units import pair_units  # noqa: E402
from alignment.config import DataConfig, ModelConfig, RunConfig  # noqa: E402
from alignment.data.checks import check  # noqa: E402
from alignment.data.readers import load_examples  # noqa: E402
from alignment.data.views import pairs as view_pairs  # noqa: E402
from alignment.data.workers import cores  # noqa: E402
from alignment.errors import UserError  # noqa: E402
from alignment.models.loading import load_tokenizer  # noqa: E402
from alignment.trainers.base import ENOUGH_TOKENS  # noqa: E402
from alignment.trainers.inputs import load_pairs  # noqa: E402

RANKS = (2, 4, 8, 16)
console = Console()


# -- packing ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Shared:
    """How a step was shared out over ranks, over many steps; shares and not per cent."""

    ranks: int
    batch_size: int
    slice_mean: float  # most tokens of a rank over the mean, less 1: every `ranks`-th example
    slice_worst: float
    balanced_mean: float  # as trainers do it
    balanced_worst: float
    fillers: float  # micro-batches that a rank runs only to wait for another, of all


def packing(
    data: Annotated[str, typer.Option(help="Preferences: a file, folder, built-in set or hub id.")] = "everyday",
    model: Annotated[str, typer.Option(help="Whose tokenizer.")] = "smollm2-135m",
    layout: Annotated[str, typer.Option(help="shared or padded.")] = "shared",
    per_rank: Annotated[int, typer.Option(min=1, help="Examples of a step, for each rank.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are looked at.")] = 200,
    token_budget: Annotated[int, typer.Option(min=1, help="training.token_budget.")] = 4096,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """How evenly a step's tokens lie on ranks: by length as trainers share them out, and as every n-th example."""
    if layout not in LAYOUTS:
        raise UserError(f"--layout {layout}: known: {', '.join(LAYOUTS)}")
    tokenizer = load_tokenizer(ModelConfig(path=model))
    units, _ = pair_units(view_pairs(load_examples(data).examples)[0], tokenizer, DataConfig())
    lengths = [unit.tokens(layout) for unit in units]
    enough = ENOUGH_TOKENS[0] if layout == "shared" else float("inf")

    def cuts(share: list[int]) -> int:
        return len(cut_by_tokens([units[index] for index in share], token_budget, layout, enough))

    rows = [shared_out(lengths, ranks, per_rank * ranks, steps, cuts) for ranks in RANKS]
    table = Table(box=box.SIMPLE)
    for title in ("ranks", "examples a step", "every n-th", "worst", "by length", "worst", "fillers"):
        table.add_column(title, justify="right")
    for row in rows:
        shares = (row.slice_mean, row.slice_worst, row.balanced_mean, row.balanced_worst, row.fillers)
        table.add_row(str(row.ranks), str(row.batch_size), *(f"{share:.1%}" for share in shares))
    console.print(
        f"{data}: {len(units)} pairs, mean of {sum(lengths) / len(lengths):.0f} tokens, {layout}, {steps} steps"
    )
    console.print(table)
    if json_file:
        json_file.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))


def shared_out(lengths: list[int], ranks: int, batch_size: int, steps: int, cuts: Callable[[list[int]], int]) -> Shared:
    """Imbalance of the first `steps` steps of seed 0; `cuts` says how many micro-batches a rank's examples make."""
    sampler = StepSampler(len(lengths), batch_size, steps, 0)
    sliced, even, run, idle = [], [], 0, 0
    for step in map(sampler.step, range(steps)):
        shares = [[step[place] for place in share] for share in balanced([lengths[i] for i in step], ranks)]
        sliced.append(imbalance(lengths, [step[rank::ranks] for rank in range(ranks)]))
        even.append(imbalance(lengths, shares))
        counts = [cuts(share) for share in shares]
        run, idle = run + max(counts) * ranks, idle + max(counts) * ranks - sum(counts)
    mean = [sum(found) / steps for found in (sliced, even)]
    return Shared(ranks, batch_size, mean[0], max(sliced), mean[1], max(even), idle / run)


def imbalance(lengths: list[int], shares: list[list[int]]) -> float:
    sums = [sum(lengths[index] for index in share) for share in shares]
    return max(sums) * len(sums) / sum(sums) - 1


# -- many pairs ------------------------------------------------------------------------------------------------------


def data(
    pairs: Annotated[int, typer.Option(min=1, help="Preference pairs, made up.")] = 1_000_000,
    words: Annotated[
        int, typer.Option(min=2, help="Most words of a prompt and of an answer; half of it at least.")
    ] = 20,
    model: Annotated[str, typer.Option(help="Whose tokenizer.")] = "smollm2-135m",
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of a step.")] = 64,
    workers: Annotated[int, typer.Option(min=1, help="data.workers; default: all cores.")] = cores(),
    folder: Annotated[Path | None, typer.Option(help="For temporary files; default: the system's.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Memory and throughput of many pairs: `align data check`, a run's first start, its second, and packing."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "pairs.jsonl"
        with file.open("w") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in made_up(pairs, words))
        console.print(f"{pairs} pairs, {file.stat().st_size / 1e6:.0f} MB of JSON Lines, {workers} processes")
        job = {"file": str(file), "pairs": pairs, "cache": place, "model": model}
        job |= {"batch_size": batch_size, "workers": workers}
        for stage in STAGES:
            rows.append({"stage": stage} | watched(job | {"stage": stage}))
            console.print(described(rows[-1]), highlight=False, soft_wrap=True)
            if json_file:
                json_file.write_text(json.dumps(rows, indent=1))


def described(row: dict[str, Any]) -> str:
    rate = row["pairs"] / row["cpu_seconds"]
    return (
        f"{row['stage']}: {row['pairs']} pairs, {row['cpu_seconds']:.0f} s of processor time "
        f"({rate:.0f} pairs a second of it), {row['wall_seconds']:.0f} s; "
        f"{row['own_mb']:.0f} MB, all processes {row['all_mb']:.0f} MB {row['note']}"
    )


def made_up(count: int, most: int) -> Iterator[dict[str, str]]:
    """Random words of the everyday set's prompts and answers."""
    rng = random.Random(0)
    texts = [example.prompt[-1]["content"] for example in load_examples("everyday").examples]
    known = sorted({word for text in texts for word in text.split()})

    def text() -> str:
        return " ".join(rng.choices(known, k=rng.randint(most // 2, most)))

    for _ in range(count):
        yield {"prompt": text(), "chosen": text(), "rejected": text()}


def watched(job: dict[str, Any]) -> dict[str, Any]:
    """What a stage says in a process of its own, and the most memory that it and its children had together."""
    started, most = time.perf_counter(), 0
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": job["cache"]}
    worker = subprocess.Popen([sys.executable, __file__, json.dumps(job)], env=environment, stdout=subprocess.PIPE)
    process = psutil.Process(worker.pid)
    while worker.poll() is None:
        total = 0
        try:
            for each in (process, *process.children(recursive=True)):
                total += each.memory_full_info().pss
        except psutil.Error:  # one of them has just ended
            pass
        most = max(most, total)
        time.sleep(1)
    if worker.returncode:
        raise UserError(f"the stage '{job['stage']}' ended with code {worker.returncode}")
    assert worker.stdout is not None
    said = json.loads(worker.stdout.read().splitlines()[-1])
    return said | {"all_mb": most / 1e6, "wall_seconds": time.perf_counter() - started}


def run_check(job: dict[str, Any]) -> tuple[int, str]:
    """(pairs that were looked at, what was seen), as of every stage."""
    report = check(job["file"])
    return report.pairs, f"({sum(map(len, report.problems.values()))} problems)"


def run_start(job: dict[str, Any]) -> tuple[int, str]:
    loaded = _load(job)
    return job["pairs"], f"({len(loaded.train)} training pairs)"


def run_packing(job: dict[str, Any]) -> tuple[int, str]:
    """One pass over the training pairs: read, cut into micro-batches and packed, as one rank of one does it."""
    units = _load(job).train
    steps = len(units) // job["batch_size"]
    batches = encoded = useful = 0
    for step in StepSampler(len(units), job["batch_size"], steps, 0):
        for piece in cut_by_tokens([units[index] for index in step], 4096, "shared", ENOUGH_TOKENS[0]):
            batch = pack(groups_of(piece))
            batches, encoded = batches + 1, encoded + batch.encoded_tokens
            useful += sum(unit.useful_tokens for unit in piece)
    note = f"({batches} micro-batches, {useful / 1e6:.1f} million tokens, {1 - useful / encoded:.1%} padding)"
    return steps * job["batch_size"], note


def _load(job: dict[str, Any]) -> Any:
    settings = DataConfig(path=job["file"], cache=job["cache"], workers=job["workers"])
    return load_pairs(None, None, load_tokenizer(ModelConfig(path=job["model"])), RunConfig(data=settings))


STAGES = {"check": run_check, "first start": run_start, "second start": run_start, "packing": run_packing}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    before = time.process_time()
    handled, note = STAGES[given["stage"]](given)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    cpu = time.process_time() - before + children.ru_utime + children.ru_stime
    print(json.dumps({"pairs": handled, "cpu_seconds": cpu, "own_mb": own * 1.024, "note": note}))
