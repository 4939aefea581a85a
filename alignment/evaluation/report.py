"""The run's report: one HTML file that needs nothing else, to be read in a browser or sent on."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.curves import draw_panels
from alignment.evaluation.files import write_atomically
from alignment.evaluation.highlight import highlight_parts, read_highlights
from alignment.evaluation.page import template
from alignment.evaluation.ranking_plot import ranking_panels
from alignment.evaluation.row import section
from alignment.evaluation.summary import read_samples, read_summary
from alignment.evaluation.table import command, flat, rows, title
from alignment.evaluation.text import NOTHING, decimal, number, visible

NAME = "report.html"


def write_report(folder: Path | str) -> Path:
    """Write report.html from summary.json, samples.jsonl, highlights.jsonl, metrics.jsonl and config.yaml; its path.

    Only the summary must be there; a part whose file is missing is left out. Everything that a model or a user wrote is
    escaped, and control and bidirectional characters are written out. A content policy in the page forbids requests.
    """
    folder = Path(folder)
    summary = read_summary(folder)
    samples = [_sample(number, row) for number, row in enumerate(read_samples(folder), start=1)]
    page = template("report.html.j2").render(
        title=title(summary),
        facts=_facts(summary),
        rows=rows(summary),
        plot=_interval_plot(section(summary, "score")),
        curves=_curves(folder, summary),
        samples=samples,
        scored=any(sample["change"] is not None for sample in samples),
        **highlight_parts(read_highlights(folder)),
        command=command(summary),
        config=_text(folder / "config.yaml"),
        counts=list(flat(section(summary, "data"))),
        versions=list(flat(section(summary, "versions"))),
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


def _sample(place: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """One sample, ready for the template; `change` is the score's change or None."""
    before, after = number(row.get("score_before")), number(row.get("score_after"))
    change = None if before is None or after is None else after - before
    shown: dict[str, Any] = {"place": place, "prompt": visible(row.get("prompt", "")), "change": change}
    shown["change_text"] = decimal(change, sign=True)
    shown["tone"] = "plain" if change is None or abs(change) < 0.005 else "good" if change > 0 else "bad"
    for side in ("before", "after"):
        tokens, score = decimal(row.get(f"tokens_{side}"), 0), decimal(row.get(f"score_{side}"), sign=True)
        facts = [f"{tokens} tokens"] if tokens != NOTHING else []
        facts += [f"score {score}"] if score != NOTHING else []
        shown[side] = {"text": visible(row.get(side, "")), "facts": ", ".join(facts)}
    return shown


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


def _curves(folder: Path, summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Each panel's title and its picture as data URIs, one for each background; none where nothing was logged."""
    light, dark = ranking_panels(summary), ranking_panels(summary, dark=True)
    with contextlib.suppress(UserError):  # nothing was logged
        light, dark = draw_panels(folder) + light, draw_panels(folder, dark=True) + dark
    return [
        {"title": name, "light": _data_uri(day), "dark": _data_uri(night)}
        for (name, day), (_, night) in zip(light, dark, strict=True)
    ]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _text(path: Path) -> str:
    return visible(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ""
