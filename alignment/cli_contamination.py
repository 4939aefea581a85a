"""`align data contamination`: how much of the evaluation sets is in the training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignment.cli_options import Format, Split
from alignment.errors import UserError

SETS = "Evaluation sets, each a file, folder, glob, hub id or built-in set."
NEAR = "A prompt whose character 5-grams have this cosine to a training prompt's is a near copy; 0: not looked for."
ROWS = "An n-gram in more training rows is boilerplate and not counted (GPT-3: 10); all count where not given."
EMBEDDINGS = "Compare prompts by the mean hidden states of this model, too: a built-in's name, folder, run or hub id."


def contamination(
    train: Annotated[str, typer.Argument(help="Training data: file, folder, glob, hub id or built-in set.")],
    evaluations: Annotated[list[str], typer.Argument(metavar="EVAL…", help=SETS)],
    n: Annotated[int, typer.Option("--n", "-n", help="Words of an n-gram; 13 is GPT-3's.")] = 8,
    threshold: Annotated[float, typer.Option(help="Share of an example's n-grams from which it is listed.")] = 0.5,
    near: Annotated[float, typer.Option(help=NEAR)] = 0.8,
    most_rows: Annotated[int | None, typer.Option(help=ROWS)] = None,
    embeddings: Annotated[str | None, typer.Option(metavar="MODEL", help=EMBEDDINGS)] = None,
    embedding_threshold: Annotated[float, typer.Option(help="Cosine from which such prompts are counted.")] = 0.9,
    shown: Annotated[int, typer.Option(min=0, help="Examples of each set that are printed.")] = 5,
    format: Format = "auto",
    eval_format: Annotated[str, typer.Option(help="The same of the evaluation sets.")] = "auto",
    split: Split = "train",
    eval_split: Annotated[str, typer.Option(help="Which split of the evaluation sets.")] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON here too.")] = None,
) -> None:
    """Look for evaluation sets in training data: align data contamination train.jsonl test.jsonl."""
    from rich.console import Console

    from alignment.data.contamination import contamination as overlap
    from alignment.data.contamination import content, embedded
    from alignment.data.contamination_rendering import render
    from alignment.data.overlap_texts import example_rows
    from alignment.data.readers import load_examples
    from alignment.evaluation.files import write_atomically
    from alignment.launch.quiet import quiet_libraries

    if json_file is not None and not json_file.parent.is_dir():  # before the work, not after it
        raise UserError(f"cannot write {json_file}: there is no folder {json_file.parent}")
    quiet_libraries()
    sets = {
        path: list(example_rows(load_examples(path, format=eval_format, split=eval_split).examples))
        for path in evaluations
    }
    rows = load_examples(train, format=format, split=split).examples
    found = overlap(example_rows(rows), sets, n=n, threshold=threshold, near=near or None, most_rows=most_rows)
    if embeddings is not None:
        from alignment.models.embeddings import Embedder

        embedder = Embedder(embeddings)
        found.embedded = embedded(example_rows(rows), sets, embeddings, embedder, embedding_threshold)
    render(found, Console(), shown)
    if json_file is not None:
        print(f"written to {write_atomically(json_file, content(found))}")
