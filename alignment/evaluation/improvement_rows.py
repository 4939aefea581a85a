"""The rows of what PIT trains: a gap reward model's order of held-out pairs, and what an improver makes of answers."""

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
        bounds = f"[{_points(entry['ci95'][0])}, {_points(entry['ci95'][1])}]" if "ci95" in entry else ""
        cells = percent(entry.get("before")), percent(entry.get("after")), _points(entry["difference"])
        built.append(Row(key, f"gap: {key}", *cells, bounds, f"{reading} {_LETTERS}", tone))
    tie = section(found, "|ww - ll|")
    if number(tie.get("after")) is not None:
        cells = decimal(tie["before"]), decimal(tie["after"]), decimal(tie["difference"], sign=True)
        reading = "Mean distance of the scores of the two answers beside themselves; no term asks for 0."
        built.append(Row("|ww - ll|", "gap: |ww - ll|", *cells, interval(tie.get("ci95")), reading))
    return built


def improved_rows(summary: Mapping[str, Any]) -> list[Row]:
    """Of rejected and of chosen reference answers: their score and that of their improvements; raised less lowered."""
    built = []
    for kind, entry in section(summary, "improved").items():
        score, won = section(entry, "score"), section(entry, "won")
        if number(score.get("after")) is not None:
            cells = decimal(score["before"]), decimal(score["after"]), decimal(score["difference"], sign=True)
            reading = f"The {score['answers']} held-out {kind} answers, and what the trained model makes of them."
            bounds, tone = interval(score.get("ci95")), _tone(score.get("ci95"))
            built.append(Row(f"improved {kind}", f"{kind} answers, improved", *cells, bounds, reading, tone))
        if number(won.get("after")) is not None:
            before, after, change = (_points(won[side]) for side in ("before", "after", "difference"))
            bounds = f"[{_points(won['ci95'][0])}, {_points(won['ci95'][1])}]" if "ci95" in won else ""
            reading = "Share of them that the model raises, less the share that it lowers; untrained, and trained."
            ends = won.get("after_ci95")
            if isinstance(ends, list):
                reading += f" Trained: {_points(ends[0])} to {_points(ends[1])}."
            label = f"{kind} answers, raised − lowered"
            built.append(Row(f"won {kind}", label, before, after, change, bounds, reading, _tone(ends)))
    return built


def _points(share: float) -> str:
    return decimal(100 * share, 0, sign=True, unit=" %")


def _tone(ends: Any) -> str:
    if not isinstance(ends, list):
        return "plain"
    return "good" if ends[0] > 0 else "bad" if ends[1] < 0 else "plain"
