"""`benchmark.py gpu`: DPO, attention kernels, sampling and CUT on one GPU, TRL beside them, as a page."""

from __future__ import annotations

import dataclasses
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from alignment.errors import UserError, unknown
from alignment.evaluation.files import write_atomically
from scripts import _benchmark_cut, _benchmark_rollout
from scripts._benchmark_contenders import CONTENDERS, Contender, installed, machine
from scripts._benchmark_pairs import prepare
from scripts._benchmark_process import measured

DPO_WORKER = Path(__file__).with_name("_benchmark_dpo.py")
WARM_UP = 2  # steps that are not timed: kernels are compiled in them
SHORTEST = 15  # seconds: with less, no contender is started
# name: (hidden size, layers, heads, heads of keys, width of the feed-forward). 1b: Llama 3.2 1B, other vocabulary.
SHAPES = {"1b": (2048, 16, 32, 8, 8192), "small": (64, 2, 4, 2, 128)}
VOCABULARY = 49152
# Tokens of (prompt, answer): of rows that TRL takes at its defaults, and of rows that are long enough for block masks.
SHORT, LONG = (384, 96), (3072, 384)
console = Console()


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement: a contender in a process of its own."""

    part: str
    name: str
    worker: Path
    settings: dict[str, Any]


Lengths = tuple[tuple[int, int], tuple[int, int]]
KERNELS = [
    dataclasses.replace(
        CONTENDERS[0],
        name=f"ours-shared, {kernel}{', checkpointing' if again else ''}",
        attention=kernel,
        gradient_checkpointing=again,
    )
    for again in (False, True)
    for kernel in ("sdpa", "flex_attention")
]


def gpu(
    out: Annotated[Path, typer.Option(help="The page; its rows go beside it, as .json.")] = Path("gpu.md"),
    shape: Annotated[str, typer.Option(help="1b; or small, to try the page out without a GPU.")] = "1b",
    minutes: Annotated[float, typer.Option(min=0.1, help="What does not fit is left out, and named.")] = 8.5,
    steps: Annotated[int, typer.Option(min=3, help="Optimizer steps; two warm up.")] = 6,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs of one step.")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each contender.")] = 8,
    only: Annotated[str | None, typer.Option(help="Names of contenders, with commas between; default: all.")] = None,
) -> None:
    """Speed and memory on one GPU: a 1B model with random weights, kernels, sampling, CUT, and TRL beside."""
    import torch

    if shape not in SHAPES:
        raise unknown("--shape", shape, SHAPES)
    if shape == "1b" and not torch.cuda.is_available():
        raise UserError("PyTorch sees no GPU; --shape small tries the page out on a CPU")
    until = time.monotonic() + 60 * minutes
    lengths = (SHORT, LONG) if shape == "1b" else ((48, 12), (96, 24))
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        base = {"model": str(make_model(scratch / "model", SHAPES[shape])), "seed": 0}
        base |= {"steps": steps, "batch_size": batch_size, "threads": threads}
        head = heading(shape, base, lengths)
        for job in jobs(scratch, base, lengths):
            if only is not None and job.name not in only.split(","):
                continue
            remaining = until - time.monotonic()
            try:
                if remaining < SHORTEST:
                    raise UserError("no time was left")
                result = measured(job.worker, job.name, job.settings, console, timeout=remaining)
            except UserError as error:  # that a contender does not fit or fails is a finding, too
                left_out.append(f"{job.part}, {job.name}: {str(error).splitlines()[-1][:200]}")
            else:
                rows.append(row_of(job, result))
                console.print(f"{job.part}, {job.name}: {rows[-1]['seconds']:.3g} s", highlight=False)
            write_atomically(out, page(rows, left_out, head))
            write_atomically(out.with_suffix(".json"), json.dumps(rows, indent=1) + "\n")
    console.print(f"\n{out}")


def make_model(folder: Path, shape: tuple[int, ...]) -> Path:
    """A Llama of this shape with random weights, float32, and the tokenizer of `tiny`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignment.config import ModelConfig
    from alignment.models.loading import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    width, layers, heads, key_heads, inner = shape
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=inner,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        LlamaForCausalLM(config).cpu().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_pairs(folder: Path, name: str, count: int, lengths: tuple[int, int]) -> Path:
    """A preference file of `count` pairs, words in random order: `lengths` tokens of (prompt, answer), nearly."""
    from alignment.config import ModelConfig
    from alignment.data.readers import load_examples
    from alignment.models.loading import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    prompts = (example.prompt[-1]["content"] for example in load_examples("everyday").examples)
    words = sorted({word for prompt in prompts for word in prompt.split()})
    chance = random.Random(0)

    def text(tokens: int) -> str:
        made = " ".join(chance.choices(words, k=tokens))
        return made[: len(made) * tokens // len(tokenizer(made)["input_ids"])].strip()

    file = folder / f"{name}.jsonl"
    with open(file, "w") as lines:
        for _ in range(count):
            row = {"prompt": text(lengths[0]), "chosen": text(lengths[1]), "rejected": text(lengths[1])}
            lines.write(json.dumps(row) + "\n")
    return file


def jobs(scratch: Path, base: dict[str, Any], lengths: Lengths) -> Iterator[Job]:
    """All measurements, what matters most first."""
    short, long = lengths
    yield from dpo_jobs(scratch, base, "DPO, bfloat16", short, "bfloat16", CONTENDERS)
    # A quarter of the pairs: a long row alone fills a pass.
    quarter = base | {"batch_size": max(1, base["batch_size"] // 4)}
    yield from dpo_jobs(scratch, quarter, "DPO, long rows, bfloat16", long, "bfloat16", KERNELS)
    pairs = make_pairs(scratch, "prompts", 4 * base["batch_size"], short)
    _, prompts = _benchmark_rollout.prepare(base["model"], str(pairs), "train", 4 * base["batch_size"], 2 * short[0], 0)
    sampling = {"dtype": "bfloat16", "prompts": prompts, "k": 4, "max_new_tokens": 128, "repeats": 1}
    for name in ("ours", "generate", "ours-mixture-lora", "ours-mixture"):
        yield Job("sampling, bfloat16", name, _benchmark_rollout.WORKER, base | sampling | {"contender": name})
    size, steps = base["batch_size"], base["steps"]
    _, records = _benchmark_cut.prepare(base["model"], "planted", "train", steps * size, 0.25, 512, 0)
    for name in ("ours-shared", "two-streams"):
        judged = {"records": records, "limit": 512, "contender": name}
        yield Job("CUT, float32", name, _benchmark_cut.WORKER, base | judged)
    yield from dpo_jobs(scratch, base, "DPO, float32", short, "float32", CONTENDERS[:2])


def dpo_jobs(
    scratch: Path,
    base: dict[str, Any],
    part: str,
    lengths: tuple[int, int],
    dtype: str,
    contenders: Sequence[Contender],
) -> Iterator[Job]:
    """The contenders of `benchmark.py dpo` on made-up pairs of these lengths."""
    count, limit = base["steps"] * base["batch_size"], 2 * max(lengths)
    file = make_pairs(scratch, f"pairs-{lengths[0]}", 2 * count, lengths)
    _, rows = prepare(base["model"], str(file), "train", count, seed=0, limit=limit)
    job = base | {"rows": rows, "dtype": dtype, "limit": limit, "token_budget": 8192, "learning_rate": 1e-6}
    for contender in contenders:
        yield Job(part, contender.name, DPO_WORKER, job | {"contender": dataclasses.asdict(contender)})


def row_of(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """One row: medians over the timed steps; of sampling, the seconds of all completions together."""
    settings = job.settings
    sampled = "prompts" in settings
    seconds = statistics.median(result["seconds"] if sampled else result["seconds"][WARM_UP:])
    if sampled:
        tokens: float = len(settings["prompts"]) * settings["k"] * settings["max_new_tokens"]
    elif "rows" in settings:  # each prompt and each answer once
        tokens = sum(sum(row["lengths"]) for row in settings["rows"]) / settings["steps"]
    else:
        tokens = result["encoded"][-1]
    return {
        "part": job.part,
        "name": job.name,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_memory_mb": result.get("peak_memory_mb"),
        "precompute_seconds": result.get("precompute_seconds"),
        "last_loss": result["losses"][-1] if "losses" in result else None,
    }


def heading(shape: str, base: dict[str, Any], lengths: Lengths) -> str:
    """What was measured, where, when, and with which versions."""
    import torch

    on = "" if torch.cuda.is_available() else "no GPU, only to try the page out: "
    device = machine(base["threads"])
    names = ("torch", "transformers", "trl", "alignment-toolkit")
    versions = ", ".join(f"{name} {found}" for name in names if (found := installed(name)))
    (short, answer), (long, long_answer) = lengths
    return (
        f"# One GPU, {date.today().isoformat()}\n\n{on}{device}; Python {platform.python_version()}, {versions}. "
        f"Random weights of the shape `{shape}`, all of them trained. DPO: {base['batch_size']} pairs a step, prompts "
        f"of about {short} and answers of {answer} tokens; long rows: a quarter of the pairs, prompts of {long}, "
        f"answers of {long_answer}. {base['steps']} steps, {WARM_UP} of them not timed. Tokens: each prompt and each "
        "answer once; of CUT, all that were encoded.\n\n`python scripts/benchmark.py gpu` makes this page.\n"
    )


def page(rows: list[dict[str, Any]], left_out: list[str], head: str) -> str:
    """The table in Markdown; `times as fast` is against the first row of its part."""
    columns = ["part", "", "seconds", "tokens/s", "times as fast", "peak memory, MB", "precomputation, s", "last loss"]
    lines = [head, f"| {' | '.join(columns)} |", "|---|---|" + "--:|" * 6]
    first: dict[str, float] = {}
    for row in rows:
        first.setdefault(row["part"], row["seconds"])
        memory, before, loss = (row[key] for key in ("peak_memory_mb", "precompute_seconds", "last_loss"))
        cells = [row["part"], row["name"], f"{row['seconds']:.3g}", f"{row['tokens_per_second']:,.0f}"]
        cells += [f"{first[row['part']] / row['seconds']:.2f}", f"{memory:,.0f}" if memory else ""]
        cells += [f"{before:.1f}" if before else "", "" if loss is None else f"{loss:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if left_out:
        lines += ["", "Not measured:", "", *(f"- {name}" for name in left_out)]
    return "\n".join(lines) + "\n"
