"""A table of a paper: what is run for it, and how its rows become claims. `make` runs what is missing."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from alignment.evaluation.figure import png
from alignment.evaluation.files import write_atomically
from alignment.evaluation.text import duration
from alignment.reproduce.lab import Lab
from alignment.reproduce.report import Made, Report, markdown, to_json
from alignment.reproduce.rows import Row, Rows

Settings = Mapping[str, Any]
Job = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One table, at every scale but the paper's (recipes/paper).

    Attributes:
        name: also of its folder under recipes/paper.
        title: a line.
        paper: which one, and which of its tables.
        settings: scale -> what its jobs are made with. A changed one makes new rows.
        minutes: scale -> time of the whole, with all of its seeds, on two free cores.
        seeds: scale -> those taken where none are given.
        jobs: (settings, seeds) -> what is to be run, in order. A job is a mapping of plain values.
        make: (lab, settings, job) -> the numbers of its row, as plain values.
        report: (settings, rows of all jobs) -> the table.
        draw: (settings, rows) -> a matplotlib figure, where the paper has one.
    """

    name: str
    title: str
    paper: str
    settings: Mapping[str, Settings]
    minutes: Mapping[str, float]
    seeds: Mapping[str, tuple[int, ...]]
    jobs: Callable[[Settings, Sequence[int]], list[Job]]
    make: Callable[[Lab, Settings, Job], Mapping[str, Any]]
    report: Callable[[Settings, list[Row]], Report]
    draw: Callable[[Settings, list[Row]], Any] | None = None


def reproduce(
    table: Table, scale: str, seeds: Sequence[int], folder: Path, say: Callable[[str], None]
) -> tuple[Made, Report]:
    """Run what is missing in `folder`, and write rows.jsonl, NAME.md, NAME.json and, where there is one, NAME.png."""
    settings = dict(table.settings[scale])
    own, lab = folder / table.name, Lab(folder / "lab")
    rows = Rows(own / "rows.jsonl")
    jobs = table.jobs(settings, seeds)
    for number, job in enumerate(jobs, 1):
        if rows.get(settings, job) is None:
            began = time.perf_counter()
            found = table.make(lab, settings, job)
            seconds = time.perf_counter() - began
            rows.add(settings, job, {**found, "seconds": round(seconds, 1)})
            say(f"[{number}/{len(jobs)}] {' '.join(f'{k}={v}' for k, v in job.items())}: {duration(seconds)}")
    found_rows = [row for job in jobs if (row := rows.get(settings, job)) is not None]
    report = table.report(settings, found_rows)
    picture = _drawn(table, settings, found_rows, own / f"{table.name}.png")
    made = Made(
        table=table.name,
        title=table.title,
        paper=table.paper,
        scale=scale,
        seeds=tuple(seeds),
        command=f"python scripts/reproduce.py {table.name} --scale {scale} --seeds {','.join(map(str, seeds))}",
        machine=machine(),
        date=date.today().isoformat(),
        seconds=sum(row["seconds"] for row in found_rows),
        settings=settings,
        picture=picture,
    )
    write_atomically(own / f"{table.name}.md", markdown(made, report))
    write_atomically(own / f"{table.name}.json", to_json(made, report))
    return made, report


def machine() -> str:
    """What it ran on, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} CPU core{'s' if cores > 1 else ''} ({platform.machine()})"


def _drawn(table: Table, settings: Settings, rows: list[Row], file: Path) -> str | None:
    figure = table.draw(settings, rows) if table.draw else None
    if figure is None:
        return None
    write_atomically(file, png(figure))
    return file.name
