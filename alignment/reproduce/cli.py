"""`scripts/reproduce.py`: one table of a paper, at one scale."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from alignment.errors import Interrupted, UserError
from alignment.reproduce import paper
from alignment.reproduce.lab import default_folder
from alignment.reproduce.report import show
from alignment.reproduce.table import reproduce
from alignment.reproduce.tables import NAMES, table_named

SCALES = ("smoke", "small", "paper")
INTERRUPTED, TERMINATED = 130, 143
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def table(
    name: Annotated[str | None, typer.Argument(metavar="TABLE", help="One of --list.")] = None,
    scale: Annotated[str, typer.Option(help="smoke, small, or paper (prints the commands, and runs them).")] = "smoke",
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2; otherwise the table's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder; what is there is gone on with.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the tables.")] = False,
) -> None:
    """Make a table of a paper again, beside the published numbers, and say which of its claims ours support.

    OUT/TABLE gets rows.jsonl (the raw data, added to), TABLE.md, TABLE.json and, where the paper has one, TABLE.png.
    OUT/lab keeps trained models and answers, which tables share. A command that was stopped goes on.
    """
    if listed:
        show_list()
        return
    if name is None:
        raise UserError(f"no table: name one of {', '.join(NAMES)}, or --list")
    if scale not in SCALES:
        raise UserError(f"--scale {scale}: known are {', '.join(SCALES)}")
    chosen = table_named(name)
    if scale == "paper":
        if seeds or out:
            raise UserError("--seeds and --out: at paper scale both stand in the recipes' own commands")
        paper.launch(name, print)
        return
    numbers = chosen.seeds[scale] if seeds is None else parsed_seeds(seeds)
    made, found = reproduce(chosen, scale, numbers, out or default_folder(scale), _say)
    from rich.console import Console

    console = Console(width=max(130, Console().width))  # the claims are that wide
    show(made, found, console)
    console.print(f"{(out or default_folder(scale)) / name / name}.md", highlight=False, soft_wrap=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed_seeds(text: str) -> tuple[int, ...]:
    """`0,1,2`; each once, none below 0."""
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 0:
        raise UserError(f"--seeds {text}: whole numbers from 0 on are needed, such as 0,1,2")
    return found


def show_list() -> None:
    """Every table: its name, a line, and the time that it takes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table("table", "what", "smoke", "small", "seeds", box=box.SIMPLE)
    for name in NAMES:
        each = table_named(name)
        times = [f"{60 * each.minutes['smoke']:.0f} s", f"{each.minutes['small']:.0f} min"]
        shown.add_row(name, each.title, *times, str(len(each.seeds["small"])))
    Console(width=max(130, Console().width)).print(shown)
    print("Times are of all seeds, on two free CPU cores. Paper scale: recipes/paper/TABLE.")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 2 for bad input, 130 for Ctrl-C."""
    run: Callable[..., object] = app
    try:
        code = run(arguments, standalone_mode=False)  # typer makes an exit code of Ctrl-C
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Interrupted:
        code = TERMINATED
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own mistakes of usage
            traceback.print_exc()
            return 1
        print(f"error: {error.format_message()}", file=sys.stderr)
        return 2
    if code in (INTERRUPTED, TERMINATED):
        print("stopped; the same command goes on", file=sys.stderr)
    return code if isinstance(code, int) else 0
