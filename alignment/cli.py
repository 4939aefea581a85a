"""`align …`: everything that is not training. Each command is a thin cover over one function, imported when it runs."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.cli_contamination import contamination
from alignment.cli_doctor import doctor
from alignment.cli_eval import evaluate
from alignment.cli_frontier import frontier
from alignment.cli_improve import improve
from alignment.cli_options import Format, Out, Overwrite, Split
from alignment.errors import UserError, impossible_name
from alignment.imports import only_named_on
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
judge_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(judge_app, name="judge", help="Hold a judge against people.")

Reference = Annotated[
    str | None, typer.Option(help="The field of a row that holds its reference answer, for feedback that wants one.")
]
FEEDBACK = "feedback=NAME, or feedback=FILE.yaml, and its settings as feedback.KEY=VALUE."


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
    allow: Annotated[
        list[str] | None, typer.Option(help="A file or module of Python that settings in files may name; repeatable.")
    ] = None,  # read by alignment.imports
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
    ratings: Annotated[
        str | None, typer.Option(help="Ratings of the same answers: how often they disagree with the preferences.")
    ] = None,
    satisfied_from: Annotated[
        float | None, typer.Option(help="Judged without a verdict: this score or more is satisfactory.")
    ] = None,
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
        ratings_path=ratings,
        satisfied_from=satisfied_from,
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


@data_app.command()
def highlight(
    path: Annotated[str, typer.Argument(help="Judged answers: file, folder, glob, hub id or built-in set.")],
    model: Annotated[str, typer.Option(help="A built-in's name, folder, run folder, hub id or .gguf file.")],
    adapter: Annotated[str | None, typer.Option(help="A LoRA adapter, or the run that made it, on the model.")] = None,
    margin: Annotated[
        float, typer.Option(help="CUT's lambda: detected is what gets likelier by more than this.")
    ] = 1.1,
    variant: Annotated[str, typer.Option(help="Of the loss cut: paper, authors_code, authors_script.")] = "paper",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many answers, sampled.")] = 20,
    html: Annotated[Path | None, typer.Option(help="Write them as an HTML page here, too.")] = None,
    satisfied_from: Annotated[
        float | None, typer.Option(help="Judged without a verdict: this score or more is satisfactory.")
    ] = None,
    judgment_template: Annotated[str, typer.Option(help="chat, alpaca, or a YAML file of your own.")] = "chat",
    template: Annotated[str, typer.Option(help="chat: the tokenizer's template; raw: the text as it stands.")] = "chat",
    max_prompt_length: Annotated[
        int, typer.Option(help="In tokens, with the judgment; a longer one is left out.")
    ] = 1024,
    max_completion_length: Annotated[int, typer.Option(help="In tokens; a longer answer is cut.")] = 512,
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.")] = "float32",
    seed: Annotated[int, typer.Option(help="Of --limit.")] = 0,
    format: Format = "auto",
    split: Split = "train",
) -> None:
    """Colour what judgments detect in bad answers: align data highlight planted --model smollm2-135m."""
    from rich.console import Console

    from alignment.config import DataConfig, JudgedConfig, ModelConfig
    from alignment.evaluation.highlight import print_highlights, write_page
    from alignment.evaluation.highlight_file import highlight_file
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    data = DataConfig(
        format=format,
        split=split,
        template=template,
        max_prompt_length=max_prompt_length,
        max_completion_length=max_completion_length,
    )
    asked = ModelConfig(path=model, dtype=dtype), data, JudgedConfig(judgment_template, satisfied_from)
    options: dict[str, Any] = {"margin": margin, "variant": variant, "adapter": adapter, "limit": limit, "seed": seed}
    rows, read = highlight_file(path, *asked, **options)
    print(read)
    print_highlights(rows, Console())
    if html is not None:
        facts = [("data", path), ("model", f"{model} + {adapter}" if adapter else model), ("margin", str(margin))]
        print(f"written to {write_page(html, rows, 'What the judgments detect', facts)}")


data_app.command()(contamination)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, such as outputs/dpo/2026-01-31_12-00-00.")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page here, too: with curves, and the answers side by side.")
    ] = None,
) -> None:
    """Compare finished runs: their results side by side, and the settings in which they differ."""
    from rich.console import Console

    from alignment.evaluation.compare import compare as compare_runs

    found = compare_runs(runs, Console())
    if html is not None:
        from alignment.evaluation.compare_page import write_comparison

        print(f"written to {write_comparison(found, html)}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, or NAME.gguf; it must not exist, or be empty.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16 (GGUF: also q8_0); as trained or begun with where not given."),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the Python that comes with the model.")
    ] = False,
) -> None:
    """Export a run's model as a plain transformers folder or a GGUF file, adapters merged, and compare the two."""
    from alignment.evaluation.export import export as export_model
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    print(f"exported to {export_model(run, out, dtype, trust_remote_code, print)}")


@app.command()
def sample(
    prompts: Annotated[str, typer.Argument(help="File, folder, glob, hub id or built-in set, in any known format.")],
    out: Out,
    model: Annotated[
        list[str],
        typer.Option(help="A built-in's name, folder, run folder, hub id or .gguf file; several share a group."),
    ],
    n: Annotated[int, typer.Option("-n", help="Answers to a prompt, of each model.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 decodes greedily.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this much probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the answers, and of --limit.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Answers made at once.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many prompts.")] = None,
    max_prompt_length: Annotated[int, typer.Option(help="In tokens; a longer prompt is left out.")] = 1024,
    template: Annotated[str, typer.Option(help="chat: the tokenizer's template; raw: the text as it stands.")] = "chat",
    dtype: Annotated[str, typer.Option(help="Of the weights: auto, bfloat16, float32 or float16.")] = "auto",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the answers that are there; new ones come after.")] = False,
    format: Format = "auto",
    split: Split = "train",
    overwrite: Overwrite = False,
) -> None:
    """Answer prompts, several times each: align sample everyday answers.jsonl --model smollm2-135m -n 4."""
    from alignment.launch.quiet import quiet_libraries
    from alignment.rollouts.sample_file import Sampling, sample_file

    quiet_libraries()
    sampling = Sampling(n, max_new_tokens, temperature, top_p, seed, batch_size, max_prompt_length, template, dtype)
    options: dict[str, Any] = {"format": format, "split": split, "limit": limit, "overwrite": overwrite}
    print(sample_file(prompts, out, model, sampling, keep=keep, **options))


@app.command()
def label(
    answers: Annotated[str, typer.Argument(help="Answers in any known format: file, folder, glob or hub id.")],
    out: Out,
    feedback: Annotated[list[str], typer.Argument(help=FEEDBACK)],
    way: Annotated[
        str | None, typer.Option("--as", help="score, prefer or review; needed where the feedback can several.")
    ] = None,
    pairs: Annotated[
        str, typer.Option(help="To prefer among: all, adjacent, best_worst (by score), or N random ones a prompt.")
    ] = "all",
    reference: Reference = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the labels that are there; else they are dropped.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Prompts asked about, and written, at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of random pairs, and of --limit.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples.")] = None,
    format: Format = "auto",
    split: Split = "train",
    overwrite: Overwrite = False,
) -> None:
    """Label answers: align label answers.jsonl labelled.jsonl feedback=length feedback.target=20."""
    from alignment.feedback.label import Labelling, describe, label_file
    from alignment.feedback.settings import feedback_settings
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    labelling = Labelling(way, pairs, reference, keep, batch_size, seed)
    settings = feedback_settings(feedback)
    options: dict[str, Any] = {"format": format, "split": split, "limit": limit, "overwrite": overwrite}
    way, totals = label_file(answers, out, settings, labelling, **options)
    _print_rows(describe(way, totals))
    print(f"written to {out}")


app.command("eval")(evaluate)
app.command()(doctor)
app.command()(improve)
app.command()(frontier)


@judge_app.command()
def audit(
    words: Annotated[
        list[str], typer.Argument(metavar="DATA... feedback=NAME", help=f"Human-labelled data. {FEEDBACK}")
    ],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many pairs of each data set.")] = None,
    again: Annotated[int, typer.Option(min=0, help="Pairs asked a second time, for self-consistency.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs asked about at once.")] = 32,
    reference: Reference = None,
    seed: Annotated[int, typer.Option(help="Of --limit, --again and the intervals.")] = 0,
    format: Format = "auto",
    split: Split = "train",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture (PNG) here.")] = None,
) -> None:
    """Hold a judge against people: agreement, kappa, bias to position and length, consistency."""
    from rich.console import Console

    from alignment.evaluation.files import write_atomically
    from alignment.evaluation.judge_audit import audit as audit_judge
    from alignment.evaluation.judge_audit_report import draw, render
    from alignment.feedback.adapters import close
    from alignment.feedback.build import build_feedback
    from alignment.feedback.settings import feedback_settings
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    given = [word for word in words if word.startswith(("feedback=", "feedback."))]
    data = [word for word in words if word not in given]
    if not data:
        raise UserError("no data: name a human-labelled set before feedback=…")
    for file in (json_file, plot):
        if file is not None and not file.parent.is_dir():  # before the work, not after it
            raise UserError(f"cannot write {file}: there is no folder {file.parent}")
    settings = feedback_settings(given)
    judge = build_feedback(settings)
    options: dict[str, Any] = {
        "limit": limit,
        "again": again,
        "batch_size": batch_size,
        "reference": reference,
        "seed": seed,
    }
    try:
        found = [audit_judge(judge, path, format=format, split=split, **options) for path in data]
    finally:
        close(judge)
    render(found, Console())
    if json_file is not None:
        content = {"feedback": settings, "settings": options, "audits": [one.to_dict() for one in found]}
        write_atomically(json_file, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
    if plot is not None:
        write_atomically(plot, draw(found, str(settings["name"])))


def _print_rows(rows: list[tuple[str, str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(Text(name), value)
    Console().print(table)


def _tokenizer(model: str | None) -> Any:
    if model is None:
        return None
    from alignment.config import ModelConfig
    from alignment.models.loading import load_tokenizer

    return load_tokenizer(ModelConfig(path=model))


def main() -> int:
    """Runs one command; a mistake in what was given is printed on one or two lines, with exit code 2."""
    try:
        with only_named_on(sys.argv[1:], "align --allow {place} …, before the command's name"):
            app(prog_name="align")
    except UserError as error:
        if wants_traceback(sys.argv):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not (named := impossible_name(error)):
            raise
        print(f"error: {named}", file=sys.stderr)
        return 2
    return 0
