"""Runs side by side: their end-of-run tables, and the settings in which they differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignment.errors import UserError
from alignment.evaluation.movement import FLUENCY_LIMIT
from alignment.evaluation.row import section
from alignment.evaluation.summary import read_config, read_summary
from alignment.evaluation.table import dotted
from alignment.evaluation.text import (
    NOTHING,
    decimal,
    duration,
    interval,
    number,
    percent,
    plus_minus,
    shortened,
    visible,
)

# Settings that say where and how a run was shown, not what was trained.
_NOT_COMPARED = ("output_dir", "resume", "traceback", "allow", "description")


def compare(folders: Sequence[Path | str], console: Console) -> list[dict[str, Any]]:
    """Print a table of the finished runs in `folders`, then the settings that differ; returns the runs' rows.

    A row holds `folder`, `summary` and `config` (dotted keys) of one run, in the order given.

    Raises:
        UserError: no folder, or one that is not a finished run (the message names the nearest runs beside it).
    """
    if not folders:
        raise UserError("nothing to compare: give one or more run folders")
    runs: list[dict[str, Any]] = [
        {
            "folder": Path(folder),
            "summary": read_summary(folder),
            "config": dict(dotted(read_config(folder))),
        }
        for folder in folders
    ]
    console.print(_legend(runs))
    console.print(_numbers(runs))
    for run in runs:
        if not run["config"]:
            console.print(Text(f"{run['folder']} has no config.yaml: its settings are not known"), style="yellow")
    if len(runs) > 1:
        differing = differences([run["config"] for run in runs])
        console.print(_settings_table(differing, len(runs)) if differing else Text("The settings are the same."))
    return runs


def differences(configs: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """Dotted keys whose values differ between `configs`, each with one value a configuration (None: not set)."""
    keys = dict.fromkeys(key for config in configs for key in config if key not in _NOT_COMPARED)
    known = [config for config in configs if config]  # a run without config.yaml differs in nothing that is known
    return {
        key: [config.get(key) for config in configs] for key in keys if len({config.get(key) for config in known}) > 1
    }


def names(folders: Sequence[Path]) -> list[str]:
    """The folders without what they have in common in front: `dpo/2026-01-02_03-04-05` or just the last part."""
    parts = [Path(os.path.abspath(folder)) for folder in folders]
    if len(parts) < 2 or len(set(parts)) < 2:
        return [part.name for part in parts]
    common = os.path.commonpath([part.parent for part in parts])
    return [os.path.relpath(part, common) for part in parts]


def facts(summary: Mapping[str, Any]) -> list[str]:
    """What a run is, in a few words each: recipe, model, seed, steps, time."""
    found = [visible(summary[key]) for key in ("recipe", "model") if summary.get(key) is not None]
    found += [f"seed {visible(summary['seed'])}"] if summary.get("seed") is not None else []
    found += [f"{decimal(summary['steps'], 0)} steps"] if number(summary.get("steps")) is not None else []
    return found + ([duration(summary["seconds"])] if number(summary.get("seconds")) is not None else [])


def _legend(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What runs 1, 2, … are."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("", overflow="fold", style="bold")
    table.add_column("", overflow="fold")
    for place, (run, name) in enumerate(zip(runs, names([run["folder"] for run in runs]), strict=True), start=1):
        table.add_row(str(place), Text(visible(name)), Text(", ".join(facts(run["summary"]))))
    return table


@dataclass(frozen=True)
class Cell:
    """A number of a run, ready to show; on a second line how it changed, where that is known."""

    text: str
    difference: str = ""
    tone: str = "plain"  # good | bad | plain; of the difference, where there is one


def number_table(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Cell]]]:
    """Headings, and the end-of-run numbers of each run; a column that no run has is left out."""
    cells = [_cells(run["summary"]) for run in runs]
    scores = score_names(runs)
    kept = [heading for heading in cells[0] if any(cell[heading].text != NOTHING for cell in cells)]
    headings = [f"score: {scores[0]}" if heading == "score" and len(scores) == 1 else heading for heading in kept]
    return headings, [[cell[heading] for heading in kept] for cell in cells]


def score_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The different scores that the runs were measured by."""
    found = [visible(section(run["summary"], "score").get("name", "")) for run in runs]
    return list(dict.fromkeys(name for name in found if name))


def _numbers(runs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("run", justify="right")
    headings, cells = number_table(runs)
    for heading in headings:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for place, row in enumerate(cells, start=1):
        table.add_row(str(place), *map(_painted, row))
    return table


def _painted(cell: Cell) -> Text:
    if cell.difference:
        style = {"good": "green", "bad": "red", "plain": ""}[cell.tone]
        return Text.assemble(cell.text, "\n", (cell.difference, style))
    return Text(cell.text, style="bold red" if cell.tone == "bad" else "")


def _cells(summary: Mapping[str, Any]) -> dict[str, Cell]:
    """One run's cells by column heading; all runs have the same headings."""
    kl, fluency = section(summary, "kl"), section(summary, "fluency")
    pairs = section(summary, "pairs") or section(summary, "answers")
    before, after = number(fluency.get("before")), number(fluency.get("after"))
    drifted = before is not None and after is not None and after - before < -FLUENCY_LIMIT
    return {
        "score": _score(section(summary, "score")),
        "accuracy": Cell(percent(pairs.get("accuracy"))),
        "KL (nats)": Cell(plus_minus(kl.get("mean"), kl.get("se"))),
        "tokens": Cell(_arrow(section(summary, "length"), 0)),
        "fluency": Cell(_arrow(fluency, 2), tone="bad" if drifted else "plain"),
    }


def _score(score: Mapping[str, Any]) -> Cell:
    """before → after, and the difference with its interval, good or bad where it excludes zero."""
    change = _arrow(score, 2)
    if change == NOTHING:
        return Cell(NOTHING)
    bounds, tone = interval(score.get("ci95")), "plain"
    if bounds:
        low, high = score["ci95"]
        tone = "good" if low > 0 else "bad" if high < 0 else "plain"
    return Cell(change, f"{decimal(score.get('difference'), sign=True)} {bounds}".rstrip(), tone)


def _arrow(entry: Mapping[str, Any], digits: int) -> str:
    before, after = decimal(entry.get("before"), digits), decimal(entry.get("after"), digits)
    return NOTHING if before == after == NOTHING else f"{before} → {after}"


def _settings_table(differing: Mapping[str, Sequence[str | None]], runs: int) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title="Settings that differ", title_justify="left", title_style="bold"
    )
    table.add_column("setting", overflow="fold")
    for place in range(1, runs + 1):
        table.add_column(f"run {place}", overflow="fold")
    for key, values in differing.items():
        cells = [Text(NOTHING if value is None else shortened(value, 60)) for value in values]
        table.add_row(Text(key), *cells)
    return table
