"""`align …`: everything that is not training. Each command is a thin cover over one function, imported when it runs."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.errors import UserError
from alignment.launch.entry import wants_traceback

app = typer.Typer(
    name="align",
    help="Preference alignment of causal language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data", help="Look at preference data, and convert it.")

Format = Annotated[
    str, typer.Option(help="A format's name, a path/to/format.py of your own, or auto: decided row by row.")
]
Split = Annotated[str, typer.Option(help="Which split of a folder, hub id or built-in set.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"alignment-toolkit {version('alignment-toolkit')}")
        except PackageNotFoundError:  # a checkout that was never installed
            print("alignment-toolkit (not installed)")
        raise typer.Exit


@app.callback()
def _align(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Preference alignment of causal language models."""


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
def train(context: typer.Context) -> None:
    """Train a model: align train recipe=dpo [key=value …]; align train --help lists the recipes."""
    from alignment.launch.entry import main as launch

    raise typer.Exit(launch(context.args, run="align train"))


@data_app.command()
def check(
    path: Annotated[str, typer.Argument(help="File, folder, glob, hub id or built-in set.")],
    format: Format = "auto",
    split: Split = "train",
    eval: Annotated[str | None, typer.Option(help="An evaluation set: prompts that are in both are shown.")] = None,
    eval_split: Annotated[str, typer.Option(help="Which split of the evaluation set.")] = "test",
    model: Annotated[str | None, typer.Option(help="Count tokens with this model's tokenizer.")] = None,
    max_prompt_length: Annotated[int, typer.Option(help="Longest prompt, in tokens.")] = 512,
    max_completion_length: Annotated[int, typer.Option(help="Longest completion, in tokens.")] = 512,
    template: Annotated[str, typer.Option(help="chat: the tokenizer's template; raw: the text as it stands.")] = "chat",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON here too.")] = None,
) -> None:
    """Check preference data before training. Exit code 1 when something is wrong, with the row numbers."""
    from rich.console import Console

    from alignment.data.checks import check as check_data
    from alignment.data.checks import render

    report = check_data(
        path,
        format=format,
        split=split,
        eval_path=eval,
        eval_split=eval_split,
        tokenizer=_tokenizer(model),
        max_prompt_length=max_prompt_length,
        max_completion_length=max_completion_length,
        template=template,
    )
    render(report, Console())
    if json_file is not None:
        try:
            content = json.dumps({"wrong": report.wrong, **asdict(report)}, indent=2, ensure_ascii=False, default=str)
            json_file.write_text(content + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {json_file}: {error.strerror}") from error
    raise typer.Exit(1 if report.wrong else 0)


@data_app.command()
def convert(
    path: Annotated[str, typer.Argument(help="File, folder, glob, hub id or built-in set.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .jsonl or .parquet.")],
    to: Annotated[str, typer.Option(help="example: the toolkit's own record; trl: TRL-style pairs.")] = "example",
    format: Format = "auto",
    split: Split = "train",
    on_bad_row: Annotated[str, typer.Option(help="skip: count and list it; stop: end there.")] = "skip",
) -> None:
    """Convert preference data of any known format to one file."""
    from alignment.data.convert import convert as convert_data

    report = convert_data(path, out, to=to, format=format, split=split, on_bad_row=on_bad_row)
    print(report.summary())
    for bad in report.skipped[:LISTED]:
        print(f"  {bad}")
    if len(report.skipped) > LISTED:
        print(f"  … and {len(report.skipped) - LISTED} more")


LISTED = 20  # bad rows named one by one


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, such as outputs/dpo/2026-01-31_12-00-00.")],
) -> None:
    """Compare finished runs: their results side by side, and the settings in which they differ."""
    from rich.console import Console

    from alignment.evaluation.compare import compare as compare_runs

    compare_runs(runs, Console())


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist, or be empty.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; as trained where not given.")] = None,
) -> None:
    """Export a run's model as a plain transformers folder, adapters merged."""
    from alignment.evaluation.export import export as export_model
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    print(f"exported to {export_model(run, out, dtype)}")


def _tokenizer(model: str | None) -> Any:
    if model is None:
        return None
    from alignment.config import ModelConfig
    from alignment.models.loading import load_tokenizer

    return load_tokenizer(ModelConfig(path=model))


def main() -> int:
    """Runs one command; a mistake in what was given is printed on one or two lines, with exit code 2."""
    try:
        app(prog_name="align")
    except UserError as error:
        if wants_traceback(sys.argv):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
