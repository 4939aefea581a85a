"""`align doctor`: what this machine can run, and the line that runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from alignment.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from alignment.launch.doctor import Diagnosis

MARKS = {"ok": "ok", "note": "–", "wrong": "WRONG"}
PARTS = {
    "weights": "weights of the policy",
    "reference": "weights of the reference",
    "others": "weights of feedback and other models",
    "gradients": "gradients",
    "optimiser": "optimiser",
    "activations": "activations of the largest micro-batch",
    "cache": "keys and values while sampling",
    "sampling": "a pass while sampling",
    "gathered": "gathered for a moment, or DDP's copy",
    "stored": "files that weights are read from",
    "runtime": "libraries and device",
}
WHILE = {
    "gradients": "training",
    "activations": "training",
    "cache": "sampling",
    "sampling": "sampling",
    "stored": "loading",
}


def doctor(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[recipe=NAME key=value …]", help="A run, as of align train.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="Plan for a machine with so many GPUs, not this one.")] = None,
    gpu_memory: Annotated[float, typer.Option(min=1, help="GB of each of them.")] = 80.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What this machine can run: align doctor recipe=dpo [key=value …]. Exit code 1 where a run would be stopped."""
    from rich.console import Console

    from alignment.launch.compose import Composer
    from alignment.launch.doctor import Machine, diagnose
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    given = list(words or [])
    if strange := [word for word in given if "=" not in word]:
        raise UserError(f"{strange[0]}: settings are written key=value, such as recipe=dpo")
    config = Composer.create().config(given) if given else None
    elsewhere = Machine(gpus, int(gpu_memory * 1e9)) if gpus else None
    found = diagnose(config, given, elsewhere)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        render(found, Console())
    raise typer.Exit(1 if found.wrong else 0)


def render(found: Diagnosis, console: Console) -> None:
    """Findings, memory by part, advice and launch line."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from alignment.launch.doctor import gb, launch_folder

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    for style in ("", "bold", ""):
        table.add_column(style=style, overflow="fold")
    for finding in found.findings:
        said = finding.value + (f"\n{finding.mend}" if finding.mend else "")
        table.add_row(Text(finding.name), Text(MARKS[finding.state]), Text(said))
    console.print(table)
    if found.estimate is None:
        say(console, f"launch configurations: {launch_folder()}")
        say(console, "align doctor recipe=NAME … looks at a run")
        return
    whose = "of each process" if found.machine.gpus > 1 else ""
    table = Table(f"memory {whose} ({found.strategy})" if whose else "memory", "", "GB", box=box.SIMPLE, pad_edge=False)
    table.columns[2].justify = "right"
    for name, words in PARTS.items():
        size = getattr(found.estimate, name)
        if size is None or size:
            table.add_row(words, WHILE.get(name, ""), "?" if size is None else f"{size / 1e9:.2f}")
    table.add_section()
    table.add_row("at the highest", "training", f"{found.estimate.training / 1e9:.2f}")
    if found.estimate.cache:
        table.add_row("", "sampling", f"{found.estimate.while_sampling / 1e9:.2f}")
    if found.estimate.stored:
        table.add_row("", "loading", f"{found.estimate.loading / 1e9:.2f}")
    console.print(table)
    for note in found.estimate.notes:
        say(console, f"note: {note}")
    if found.advice:
        table = Table("to make it fit, in order", "saves", "then", "", box=box.SIMPLE, pad_edge=False)
        for column in table.columns[:3]:
            column.no_wrap = True
        for advice in found.advice:
            table.add_row(Text(advice.override), gb(advice.saves), gb(advice.then), Text(advice.note))
        console.print(table)
    if found.estimate.total > found.machine.memory and (
        not found.advice or found.advice[-1].then > found.machine.memory
    ):
        say(console, "It does not fit with all of that: more GPUs (fsdp2), a smaller model, or shorter data.max_*.")
    say(console, f"launch: {found.line}")


def say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
