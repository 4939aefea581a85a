"""The run's report: one HTML file that needs nothing else, to be read in a browser or sent on."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.files import write_atomically
from alignment.evaluation.highlight import highlight_parts, read_highlights
from alignment.evaluation.line_chart import Chart, drawn, run_charts
from alignment.evaluation.page import template
from alignment.evaluation.ranking_plot import ranking_panels
from alignment.evaluation.row import section
from alignment.evaluation.sample_browser import PAGE, Side, entry
from alignment.evaluation.sections import read_sections
from alignment.evaluation.summary import read_samples, read_summary
from alignment.evaluation.table import command, flat, rows, title
from alignment.evaluation.text import number, visible

NAME = "report.html"


def write_report(folder: Path | str) -> Path:
    """Write report.html from summary.json, samples.jsonl, highlights.jsonl, metrics.jsonl and config.yaml; its path.

    Only the summary must be there; a part whose file is missing is left out. Everything that a model or a user wrote is
    escaped, and control and bidirectional characters are written out. A content policy in the page forbids requests,
    and every script but the page's own, without which the page is whole, too: it searches, filters and sorts.

    Further tables: every file `*.section.json` in the folder, in the order of their names. It holds {"title": str,
    "text": str (optional), "columns": [str, …], "rows": [[cell, …], …]} with as many cells in every row as there are
    columns; a cell is text, a number, true, false or null. All of it is escaped. A section that cannot be read is named
    in the report. Whoever writes one calls `write_report` again.
    """
    folder = Path(folder)
    summary = read_summary(folder)
    samples = [
        entry(place, row.get("prompt"), [Side.of(row, "before"), Side.of(row, "after")])
        for place, row in enumerate(read_samples(folder), start=1)
    ]
    charts, more = ([drawn(chart) for chart in found] for found in _charts(folder))
    page = template("report.html.j2").render(
        title=title(summary),
        facts=_facts(summary),
        rows=rows(summary),
        plot=_interval_plot(section(summary, "score")),
        charts=charts,
        more_charts=more,
        pictures=_pictures(summary),
        sections=read_sections(folder),
        samples=samples,
        scored=any(change for sample in samples for change in sample["changes"]),
        first_page=PAGE,
        **highlight_parts(read_highlights(folder)),
        command=command(summary),
        config=_text(folder / "config.yaml"),
        counts=list(flat(section(summary, "data"))),
        versions=list(flat(section(summary, "versions"))),
        data={"samples": samples, "charts": [chart["said"] for chart in [*charts, *more]]},
    )
    return write_atomically(folder / NAME, page)


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The line under the title: what ran, and when."""
    found = [
        (key, visible(summary[key])) for key in ("recipe", "method", "model", "seed") if summary.get(key) is not None
    ]
    finished = visible(summary.get("finished", ""))
    if finished:
        found.append(("finished", finished[:16].replace("T", " ") + (" UTC" if "+00:00" in finished else "")))
    return found


def _interval_plot(score: Mapping[str, Any]) -> dict[str, float] | None:
    """Where zero, the difference and the interval's ends lie on a scale of 0 to 100, or None without an interval."""
    ends = score.get("ci95")
    values = [number(value) for value in (score.get("difference"), *(ends if isinstance(ends, list) else []))]
    known = [value for value in values if value is not None]
    if len(known) != 3:
        return None
    lowest, highest = min(0.0, *known), max(0.0, *known)
    span = (highest - lowest) or 1.0

    def place(value: float) -> float:
        return round(6 + 88 * (value - lowest) / span, 2)

    return {"zero": place(0.0), "difference": place(known[0]), "low": place(known[1]), "high": place(known[2])}


def _charts(folder: Path) -> tuple[list[Chart], list[Chart]]:
    """The known panels, and the others; none where nothing was logged."""
    with contextlib.suppress(UserError):
        return run_charts(folder)
    return [], []


def _pictures(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each picture of a ranking: its title and data URIs, one for each background."""
    both = zip(ranking_panels(summary), ranking_panels(summary, dark=True), strict=True)
    return [{"title": name, "light": _data_uri(day), "dark": _data_uri(night)} for (name, day), (_, night) in both]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _text(path: Path) -> str:
    return visible(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ""
