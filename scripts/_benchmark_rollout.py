"""`benchmark.py rollout`: tokens a second of sampling, ours against `generate`, and the mixture against TRL's."""

from __future__ import annotations

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

WORKER = Path(__file__).with_name("_benchmark_rollout_worker.py")
# name: what it is
CONTENDERS = {
    "ours": "PolicySampler",
    "generate": "model.generate on k copies of each prompt",
    "ours-mixture-lora": "MixtureSampler, policy with LoRA and its base",
    "ours-mixture": "MixtureSampler, two models",
    "mixture-no-cache": "two models, everything encoded anew for each token",
    "trl-mixture": "TRL's GeometricMixtureWrapper (NashMDTrainer), two models, in the --peer environment",
}
RATIOS = [  # (ours, theirs)
    ("ours", "generate"),
    ("ours-mixture", "mixture-no-cache"),
    ("ours-mixture", "trl-mixture"),
    ("ours-mixture-lora", "ours-mixture"),
]
console = Console()


def rollout(
    model: Annotated[str, typer.Option(help="A built-in's name, a folder, hub id or GGUF file.")] = "smollm2-135m",
    data: Annotated[str, typer.Option(help="Where the prompts come from.")] = "everyday",
    split: Annotated[str, typer.Option(help="Of a folder, hub id or built-in set.")] = "train",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32 or bfloat16.")] = "bfloat16",
    prompts: Annotated[int, typer.Option(min=1, help="Different prompts.")] = 8,
    k: Annotated[int, typer.Option("-k", min=1, help="Completions of each prompt; all are decoded at once.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of every completion; no end token.")] = 128,
    limit: Annotated[int, typer.Option(min=1, help="Tokens of the longest prompt.")] = 512,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each contender.")] = os.cpu_count() or 1,
    repeats: Annotated[int, typer.Option(min=1, help="How often each contender samples; the median counts.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of prompts.")] = 0,
    only: Annotated[str | None, typer.Option(help="Names of contenders, with commas between; default: all.")] = None,
    peer: Annotated[Path | None, typer.Option(help="A Python with TRL 1.13, the last with Nash-MD.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Tokens a second of sampling: ours against `generate`, and mixture decoding against a cache-less loop and TRL."""
    if dtype not in ("float32", "bfloat16"):
        raise unknown("--dtype", dtype, ("float32", "bfloat16"))
    names = chosen(only, peer)
    folder, ids = prepare(model, data, split, prompts, limit, seed)
    job = {"model": folder, "dtype": dtype, "prompts": ids, "k": k, "max_new_tokens": max_new_tokens}
    job |= {"threads": threads, "repeats": repeats}
    lengths = [len(prompt) for prompt in ids]
    console.print(
        f"{model}, {dtype}, {prompts} prompts of {min(lengths)} to {max(lengths)} tokens x {k} completions of "
        f"{max_new_tokens} tokens, {threads} threads\n",
        highlight=False,
    )
    rows = []
    for name in names:
        python = peer if name == "trl-mixture" else None
        result = measured(WORKER, name, job | {"contender": name}, console, python)
        seconds = statistics.median(result["seconds"])
        tokens = prompts * k * max_new_tokens
        rows.append({"name": name, "what": result.get("peer", CONTENDERS[name]), "tokens_per_second": tokens / seconds})
        rows[-1] |= {"seconds": result["seconds"], "tokens": tokens, "dtype": dtype}
        console.print(f"{name}: {tokens / seconds:.1f} tokens/s", highlight=False)
    show(rows)
    if json_file:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


def chosen(only: str | None, peer: Path | None) -> list[str]:
    """The contenders that `only` names; all of them, TRL's with a peer alone, by default."""
    if only is None:
        return [name for name in CONTENDERS if name != "trl-mixture" or peer]
    names = only.split(",")
    for name in names:
        if name not in CONTENDERS:
            raise unknown("contender", name, CONTENDERS)
    if "trl-mixture" in names and peer is None:
        raise UserError("trl-mixture needs --peer PYTHON, an environment with trl==1.13.0")
    return [name for name in CONTENDERS if name in names]


def prepare(model: str, data: str, split: str, count: int, limit: int, seed: int) -> tuple[str, list[list[int]]]:
    """(folder of the model, token ids of `count` different prompts of at most `limit` tokens)."""
    from alignment.config import ModelConfig
    from alignment.data.readers import load_examples
    from alignment.data.templates import check_tokenizer, encode_prompt
    from alignment.models.loading import load_tokenizer, resolve

    tokenizer = load_tokenizer(ModelConfig(path=model))
    check_tokenizer(tokenizer)
    examples = load_examples(data, split=split, seed=seed).examples
    found = list(dict.fromkeys(tuple(encode_prompt(tokenizer, example.prompt)) for example in examples))
    short = [list(ids) for ids in found if len(ids) <= limit]
    if len(short) < count:
        raise UserError(f"--data {data} has {len(short)} different prompts of at most {limit} tokens: lower --prompts")
    return resolve(model), random.Random(seed).sample(short, count)


def show(rows: list[dict[str, Any]]) -> None:
    """The table, in Markdown so that it can be pasted, and the ratios."""
    table = Table("", "tokens/s", "seconds", "what it is", box=box.MARKDOWN)
    for row in rows:
        seconds = statistics.median(row["seconds"])
        table.add_row(row["name"], f"{row['tokens_per_second']:.1f}", f"{seconds:.1f}", row["what"])
    Console(width=max(console.width, 130)).print(table)
    speed = {row["name"]: row["tokens_per_second"] for row in rows}
    for ours, theirs in RATIOS:
        if ours in speed and theirs in speed:
            console.print(f"- {ours} against {theirs}: {speed[ours] / speed[theirs]:.2f} times", highlight=False)
