"""A table beside the paper's: Markdown, terminal and JSON from one record."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from alignment.evaluation.agreement import Estimate
from alignment.evaluation.text import NOTHING, decimal, visible
from alignment.reproduce.claims import Finding, finite

Cell = str | float | int | None | Estimate
NOT_CORRECTED = (
    "Each interval is for itself: of many claims that are false, one in forty would seem supported by chance."
)
CLAIMS = ["claim", "published", "measured here", "ours [95 % interval]", "verdict"]


@dataclass
class Section:
    """One table. Numbers are rounded to `digits` where they are shown, and whole in the JSON."""

    title: str
    heads: list[str]
    lines: list[list[Cell]]
    digits: int = 2
    note: str = ""


@dataclass
class Report:
    """What was found at one scale."""

    findings: list[Finding]
    sections: list[Section]
    notes: list[str] = field(default_factory=list)  # what differs from the paper, and how to read it


@dataclass(frozen=True)
class Made:
    """How a report came about."""

    table: str
    title: str
    paper: str
    scale: str
    seeds: tuple[int, ...]
    command: str
    machine: str
    date: str
    seconds: float
    settings: dict[str, Any]
    picture: str | None = None  # a file beside it

    @property
    def lines(self) -> list[str]:
        """How it was made, for a person."""
        seeds = ", ".join(map(str, self.seeds))
        named = f"Scale: {self.scale}. Seed{'s' if len(self.seeds) > 1 else ''}: {seeds}. {self.machine}. {self.date}."
        if self.scale == "smoke":
            named += " A smoke run shows that the pipeline runs from end to end; it is too short to say anything else."
        return [named]


def cell(value: Cell, digits: int) -> str:
    """How a number stands in a table; text is made safe to show."""
    if isinstance(value, Estimate):
        if not math.isfinite(value.value):
            return NOTHING
        ends = f" [{decimal(value.low, digits)}, {decimal(value.high, digits)}]"
        return decimal(value.value, digits) + (ends if value.low != value.high else "")
    if isinstance(value, str):
        return visible(value).replace("\n", " ")
    if isinstance(value, int):
        return f"{value:,}"
    return decimal(value, digits)


def claims_section(findings: Sequence[Finding]) -> Section:
    """The claims as a table."""
    lines: list[list[Cell]] = []
    for each in findings:
        ours = cell(each.ours, each.claim.digits) + (f"; over {each.over}" if each.over else "")
        lines.append([each.claim.text, each.claim.published, each.claim.figure, ours, each.verdict])
    return Section("Claims", list(CLAIMS), lines, note=NOT_CORRECTED)


def markdown(made: Made, report: Report) -> str:
    """The page of a table."""
    parts = [f"# {made.title}", made.paper, *made.lines, f"```console\n{made.command}\n```"]
    for section in [claims_section(report.findings), *report.sections]:
        parts += [f"## {section.title}", _markdown_table(section), *([section.note] if section.note else [])]
    parts += [f"![{made.title}]({made.picture})"] if made.picture else []
    parts += ["\n".join(f"- {note}" for note in report.notes)] if report.notes else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(section: Section) -> str:
    numbers = [all(not isinstance(line[at], str) for line in section.lines) for at in range(len(section.heads))]
    rows = [section.heads, ["--:" if number else "---" for number in numbers]]
    rows += [[cell(value, section.digits).replace("|", "\\|") for value in line] for line in section.lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def show(made: Made, report: Report, console: Console) -> None:
    """The same on a terminal."""
    console.print(Text(made.title, style="bold"))
    for line in [made.paper, *made.lines]:
        console.print(Text(line))
    for section in [claims_section(report.findings), *report.sections]:
        table = RichTable(*section.heads, box=box.SIMPLE, title=section.title, title_justify="left")
        for values in section.lines:
            table.add_row(*(Text(cell(value, section.digits)) for value in values))
        console.print(table)
        if section.note:
            console.print(Text(section.note))
    for note in report.notes:
        console.print(Text(f"- {note}"))


def to_json(made: Made, report: Report) -> str:
    """All numbers as they are, for a program."""
    sections = [
        {"title": each.title, "heads": each.heads, "lines": [[_plain(value) for value in line] for line in each.lines]}
        for each in report.sections
    ]
    found = {**vars(made), "seeds": list(made.seeds), "claims": [each.to_json() for each in report.findings]}
    return json.dumps({**found, "sections": sections, "notes": report.notes}, indent=1, ensure_ascii=False) + "\n"


def _plain(value: Cell) -> Any:
    return [finite(end) for end in value[:3]] if isinstance(value, Estimate) else finite(value)
