"""The rows of what PIT trains: a gap reward model's order of held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.evaluation.row import Row, section
from alignment.evaluation.text import decimal, interval, number, percent

_LETTERS = "The candidate's letter is first, w the preferred answer and l the other one."
_READINGS = {
    "wl > ww": "A better answer than its reference scores above a good one beside itself.",
    "wl > ll": "A better answer than its reference scores above a bad one beside itself.",
    "wl > lw": "A better answer than its reference scores above a worse one.",
    "ww > lw": "A good answer beside itself scores above a worse answer than its reference.",
    "ll > lw": "A bad answer beside itself scores above a worse answer than its reference.",
    "all five": "Pairs in which none of the five is out of order.",
}


def gap_rows(summary: Mapping[str, Any]) -> list[Row]:
    """One row for each term of the loss, one for all of them, and one for the two scores of equal answers."""
    built = []
    found = section(summary, "gaps")
    for key, reading in _READINGS.items():
        entry = section(found, key)
        if number(entry.get("after")) is None:
            continue
        ends, tone = entry.get("after_ci95"), "plain"
        if isinstance(ends, list) and key != "all five":
            tone = "good" if ends[0] > 0.5 else "bad" if ends[1] < 0.5 else "plain"
            reading += f" After training in {100 * ends[0]:.0f} % to {100 * ends[1]:.0f} % of pairs."
        low, high = entry.get("ci95", (0.0, 0.0))
        bounds = f"[{100 * low:+.0f} %, {100 * high:+.0f} %]" if "ci95" in entry else ""
        cells = percent(entry.get("before")), percent(entry.get("after")), f"{100 * entry['difference']:+.0f} %"
        built.append(Row(key, f"gap: {key}", *cells, bounds, f"{reading} {_LETTERS}", tone))
    tie = section(found, "|ww - ll|")
    if number(tie.get("after")) is not None:
        cells = decimal(tie["before"]), decimal(tie["after"]), decimal(tie["difference"], sign=True)
        reading = "Mean distance of the scores of the two answers beside themselves; no term asks for 0."
        built.append(Row("|ww - ll|", "gap: |ww - ll|", *cells, interval(tie.get("ci95")), reading))
    return built
