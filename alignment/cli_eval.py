"""`align eval`: models compared on a prompt set."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.cli_options import Format
from alignment.errors import Interrupted, UserError
from alignment.launch.entry import RANK_0_FIRST_SECONDS

MODELS = (
    "NAME=SPEC or SPEC: a built-in's name, folder, run folder, adapter, hub id, .gguf file, or a file of stored answers"
    " in any known format (FILE#SOURCE where it holds those of several models)."
)
EMBEDDER = "Distance of answers by the mean hidden states of this model: a built-in's name, folder, run or hub id."
NLI = "How far answers contradict each other, by this sequence classifier with NLI labels: a folder or hub id."
LONGEST_WAIT = timedelta(days=2)  # of one process for another: a benchmark of lm-eval can take hours
FEEDBACK = "a feedback's name, a FILE.yaml of its settings, or the run that trained it; also NAME=WHAT. Repeatable."


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=MODELS)],
    prompts: Annotated[str, typer.Option(help="File, folder, glob, hub id or built-in set, in any known format.")],
    out: Annotated[Path, typer.Option(help="The folder to write; what is there is gone on with.")],
    score: Annotated[list[str] | None, typer.Option(help=f"What scores each answer: {FEEDBACK}")] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help=f"What compares two answers, in both orders: {FEEDBACK} Of a reward, scores."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The model that the others are compared with; the first, where not given.")
    ] = None,
    pairs: Annotated[
        str, typer.Option(help="What judges compare: all models with each other, or with the baseline.")
    ] = "all",
    reference: Annotated[
        str | None, typer.Option(help="What the KL is measured to: one of the models by its name, or another.")
    ] = None,
    embedder: Annotated[str | None, typer.Option(metavar="MODEL", help=EMBEDDER)] = None,
    nli: Annotated[str | None, typer.Option(metavar="MODEL", help=NLI)] = None,
    held_out: Annotated[Path | None, typer.Option(help="A file of text, for the perplexity.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Benchmarks of lm-eval, with commas between: arc_easy,hellaswag.")
    ] = None,
    task_limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples of each benchmark.")] = None,
    n: Annotated[int, typer.Option("-n", help="Answers to a prompt, of each model; 2 or more show diversity.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[
        float, typer.Option(help="0 decodes greedily; at 1 KL and entropy are the model's own.")
    ] = 1.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this much probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the answers, of --limit and of the intervals.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Answers made at once.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many prompts.")] = None,
    max_prompt_length: Annotated[int, typer.Option(help="In tokens; a longer prompt gets no answer.")] = 1024,
    template: Annotated[str, typer.Option(help="chat: the tokenizer's template; raw: the text as it stands.")] = "chat",
    dtype: Annotated[str, typer.Option(help="Of the weights: auto, bfloat16, float32 or float16.")] = "auto",
    answer_field: Annotated[
        str | None,
        typer.Option(help="The field of a row that holds its reference answer, for feedback that wants one."),
    ] = None,
    format: Format = "auto",
    split: Annotated[
        str, typer.Option(help="Of the prompts: which split of a folder, hub id or built-in set.")
    ] = "test",
) -> None:
    """Compare models: align eval tiny outputs/dpo/RUN --prompts everyday --out evals/first --judge plain_words.

    Exit code 1 where a score or judge failed on the way: the tables are written, and the same command goes on.
    """
    from alignment.launch.processes import rank, use_all_cores

    use_all_cores()  # before torch is imported
    from rich.console import Console

    from alignment.evaluation.models.run import Asking
    from alignment.evaluation.models.run import evaluate as evaluate_models
    from alignment.evaluation.models.tables import render
    from alignment.launch.quiet import quiet_libraries
    from alignment.rollouts.sample_file import Sampling

    quiet_libraries()
    named = [task.strip() for task in (tasks or "").split(",") if task.strip()]
    asking = Asking(score or [], judge or [], baseline, pairs, reference, embedder, nli, held_out, named, task_limit)
    sampling = Sampling(n, max_new_tokens, temperature, top_p, seed, batch_size, max_prompt_length, template, dtype)
    options: dict[str, Any] = {"format": format, "split": split, "limit": limit, "answer_field": answer_field}
    try:
        found = evaluate_models(models, prompts, out, asking, sampling, **options, processes=processes_of_launch())
    except Interrupted:
        if rank() == 0:
            typer.echo(f"stopped: what was answered and judged is in {out}; the same command goes on", err=True)
        raise typer.Exit(143) from None
    except UserError as error:
        if rank() == 0:
            raise
        time.sleep(RANK_0_FIRST_SECONDS)  # where the first process has failed as well, the launcher ends this one
        typer.echo(f"error on rank {rank()}: {error}", err=True)
        raise typer.Exit(2) from error
    if rank() == 0:
        console = Console()
        console.print(found.asked.read, markup=False, highlight=False, soft_wrap=True)
        render(found.tables, found.notes, console)
        console.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)
    if found.failures:
        raise typer.Exit(1)


def processes_of_launch() -> Any:
    """Those that `accelerate launch` or `torchrun` started; None for this one alone."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    import torch
    from accelerate import PartialState

    from alignment.launch.together import Together
    from alignment.trainers.termination import TERMINATION

    TERMINATION.install()
    return Together(PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT))
