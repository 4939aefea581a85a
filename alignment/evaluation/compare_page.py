"""`align compare --html`: the comparison as one page, with the runs' curves overlaid and their answers side by side."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.compare import differences, facts, names, number_table, score_names
from alignment.evaluation.curves import read_metrics
from alignment.evaluation.files import write_atomically
from alignment.evaluation.line_chart import Metrics, drawn, overlaid, style
from alignment.evaluation.page import template
from alignment.evaluation.sample_browser import PAGE, Side, entry
from alignment.evaluation.summary import read_samples
from alignment.evaluation.text import NOTHING, shortened, visible


def write_comparison(runs: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Write what `compare` returned as one page that needs nothing else.

    It shows the table and the settings of the terminal, the curves of all runs overlaid, and the answers after training
    to the prompts that all runs answered (see `shared_samples`). Text is escaped as in a run's report.
    """
    labels = [
        f"{place} · {visible(name)}" for place, name in enumerate(names([run["folder"] for run in runs]), start=1)
    ]
    short = [f"run {place + 1}" for place in range(len(runs))]
    headings, cells = number_table(runs)
    metrics = [_metrics(run["folder"]) for run in runs]
    losses = [run["config"].get("loss.name") or visible(run["summary"].get("method", "")) for run in runs]
    charts = [drawn(chart) for chart in overlaid(short, losses, metrics)]
    rows = [read_samples(run["folder"]) for run in runs]
    with_rows = [place for place, found in enumerate(rows) if found]
    samples, notes = _samples(runs, labels, rows, with_rows)
    page = template("compare.html.j2").render(
        title=f"{len(runs)} runs compared" if len(runs) > 1 else visible(runs[0]["folder"].name),
        facts=[],
        labels=labels,
        headings=headings,
        runs=[
            {"label": label, "facts": ", ".join(facts(run["summary"])), "cells": row, "settings": bool(run["config"])}
            for label, run, row in zip(labels, runs, cells, strict=True)
        ],
        settings=[
            (visible(key), [NOTHING if value is None else shortened(value, 200) for value in values])
            for key, values in differences([run["config"] for run in runs]).items()
        ],
        keys=[(label, style(place)) for place, label in enumerate(labels)],
        charts=charts,
        samples=samples,
        sampled=[labels[place] for place in with_rows],
        sampled_names=[short[place] for place in with_rows],
        notes=notes,
        scored=any(change for sample in samples for change in sample["changes"]),
        first_page=PAGE,
        data={"samples": samples, "charts": [chart["said"] for chart in charts]},
    )
    return write_atomically(file, page)


def _metrics(folder: Path) -> Metrics:
    with contextlib.suppress(UserError):  # nothing was logged
        return read_metrics(folder)
    return [], []


def _samples(
    runs: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    rows: Sequence[Sequence[Mapping[str, Any]]],
    with_rows: Sequence[int],
) -> tuple[list[dict[str, Any]], list[str]]:
    """The answers of the runs that have `rows`, side by side, and what is to be said about them."""
    notes = [f"{labels[place]} holds no answers." for place, found in enumerate(rows) if not found]
    comparable = len(score_names([runs[place] for place in with_rows])) < 2
    if not comparable:
        notes.append("The runs were scored by different rewards, so that their scores are not held against each other.")
    shared, left_out = shared_samples([rows[place] for place in with_rows])
    if len(with_rows) > 1:
        counts = ", ".join(
            f"{count:,} of {labels[place]}" for place, count in zip(with_rows, left_out, strict=True) if count
        )
        all_of_them = "both" if len(with_rows) == 2 else f"all {len(with_rows)}"
        left = f"left out, as others lack them: {counts}" if counts else "none is left out"
        notes.append(f"{len(shared):,} prompts are shared by {all_of_them} runs; {left}.")
    samples = []
    for place, answers in enumerate(shared, start=1):
        sides = [Side.of(row, "after") for row in answers]
        found = entry(place, answers[0].get("prompt"), sides)
        if not comparable:
            found["changes"] = [None] * (len(sides) - 1)
        samples.append(found)
    return samples, notes


def shared_samples(runs: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[list[Mapping[str, Any]]], list[int]]:
    """The rows of samples.jsonl whose prompt every run has, one from each, in the first run's order.

    The second row with a prompt is held against the second one, and so on. Also how many rows of each run are left out.
    """
    keyed = [_by_prompt(rows) for rows in runs]
    shared = [key for key in keyed[0] if all(key in other for other in keyed[1:])] if keyed else []
    return [[rows[key] for rows in keyed] for key in shared], [len(rows) - len(shared) for rows in keyed]


def _by_prompt(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    seen: Counter[str] = Counter()
    found = {}
    for row in rows:
        prompt = str(row.get("prompt", ""))
        found[prompt, seen[prompt]] = row
        seen[prompt] += 1
    return found
