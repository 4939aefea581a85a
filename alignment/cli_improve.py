"""`align improve`: answers made better by a model that is given them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.cli_options import Format, Overwrite, Split

MODEL = "A built-in's name, folder, run folder, hub id or .gguf file."
OUT = "The file to write, .jsonl; what is there of the same work is gone on with. - for the standard output."
GAP = "What says whether an answer got better: a run of recipe=pit_gap or recipe=reward, or the name of feedback."
RULE = (
    "stop: at the first round that is no better; best: all rounds, from the best so far; last: whatever the gap says."
)
TRAINED = "As the run that made the model"


def improve(
    answers: Annotated[
        str,
        typer.Argument(help="Prompts with answers: file, folder, glob, hub id or built-in set; - for standard input."),
    ],
    out: Annotated[Path, typer.Argument(help=OUT)],
    model: Annotated[str, typer.Option(help=f"The improver. {MODEL}")],
    adapter: Annotated[str | None, typer.Option(help="A LoRA adapter, or the run that made it, on the model.")] = None,
    gap: Annotated[str | None, typer.Option(help=GAP)] = None,
    rounds: Annotated[int, typer.Option(help="At most so many.")] = 3,
    rule: Annotated[str | None, typer.Option(help=f"{RULE} stop with a gap, else last.")] = None,
    way: Annotated[
        str, typer.Option(help="improver; self_refine: by prompts for a critique and a new answer; resample: anew.")
    ] = "improver",
    of: Annotated[str, typer.Option(help="Which answers of a prompt: all, first, last, better or worse.")] = "all",
    answer_first: Annotated[
        bool, typer.Option("--answer-first", help="Prompts without an answer are answered by --policy; else left out.")
    ] = False,
    policy: Annotated[str | None, typer.Option(help=f"What answers first. {MODEL}")] = None,
    shown: Annotated[int, typer.Option(min=0, help="Print the rounds of so many answers, with what changed.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 decodes greedily.")] = 0.4,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this much probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the answers, and of --limit.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Answers made, and written, at once.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples.")] = None,
    max_prompt_length: Annotated[
        int, typer.Option(help="In tokens, with the answer to improve; one that needs more stays as it is.")
    ] = 2048,
    max_reference_length: Annotated[
        int | None, typer.Option(help=f"Tokens of an answer that the improver is shown. {TRAINED}, else 256.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help=f"chat: the tokenizer's template; raw: the text as it stands. {TRAINED}, else chat."),
    ] = None,
    improvement_template: Annotated[
        str | None, typer.Option(help=f"chat, alpaca, or a YAML file of your own. {TRAINED}, else chat.")
    ] = None,
    refine_template: Annotated[
        str | None, typer.Option(help="Of --way self_refine: chat, alpaca, or a YAML file of your own.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: auto, bfloat16, float32 or float16.")] = "auto",
    format: Format = "auto",
    split: Split = "train",
    overwrite: Overwrite = False,
) -> None:
    """Improve answers: align improve answers.jsonl better.jsonl --model RUN --gap RUN --rounds 3."""
    from rich.console import Console

    from alignment.evaluation.rounds import print_rounds
    from alignment.launch.quiet import quiet_libraries
    from alignment.resumable import STDOUT
    from alignment.rollouts.improve_file import Models, improve_file
    from alignment.rollouts.improver import Improver, Improving

    quiet_libraries()
    sampled = max_new_tokens, temperature, top_p, seed, batch_size
    shows = max_prompt_length, max_reference_length, template, improvement_template, refine_template
    settings = Improving(way, rounds, rule, *sampled, *shows, dtype)
    models = Models(model, adapter, gap, policy)
    improver = Improver(model, gap, policy=policy, adapter=adapter, settings=settings)
    options: dict[str, Any] = {"format": format, "split": split, "limit": limit, "overwrite": overwrite}
    said, records = improve_file(
        answers, out, improver, models, of=of, answer_first=answer_first, shown=shown, **options
    )
    console = Console(stderr=str(out) == STDOUT)  # the records alone are on the standard output
    print_rounds(records, console)
    console.print(said, markup=False, highlight=False, soft_wrap=True)
