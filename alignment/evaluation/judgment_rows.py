"""The rows on judgments within a run: the share of fresh answers that satisfy its critic, at the end and after each
iteration of recipe=cut_online, and how many answers recipe=ilf has refined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.evaluation.row import Row, section
from alignment.evaluation.text import decimal, number, percent, visible

LEFT_OUT = ("unchanged", "empty", "cut", "too_long")  # why a refinement is not trained on


def satisfied(summary: Mapping[str, Any]) -> Row | None:
    """Before and after the run."""
    found = section(summary, "satisfied")
    dropped = f" {found['dropped']} without a verdict are left out." if found.get("dropped") else ""
    told, tone = _told(found)
    reading = f"The share of fresh answers to held-out prompts that the critic finds satisfactory.{dropped} {told}"
    return _row("satisfied", f"satisfies {visible(found.get('name', 'the critic'))}", found, reading, tone)


def iterations(summary: Mapping[str, Any]) -> list[Row]:
    """The same after each iteration of a run that has some."""
    found = summary.get("iterations")
    rows = [_iteration(entry) for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []
    return [row for row in rows if row is not None]


def _iteration(entry: Mapping[str, Any]) -> Row | None:
    place = entry.get("iteration")
    sampled = f"{entry.get('answers')} answers to {entry.get('prompts')} prompts, {entry.get('unsatisfactory')} of them"
    reading = f"{sampled} not satisfactory; trained on {entry.get('trained_on')} in {entry.get('steps')} steps."
    if number(section(entry, "kl").get("mean")) is not None:
        reading += f" KL to the first model: {decimal(section(entry, 'kl')['mean'])} nats."
    found = section(entry, "satisfied")
    return _row(f"iteration {place}", f"… after iteration {place}", found, reading, _told(found)[1])


def refined(summary: Mapping[str, Any]) -> Row | None:
    """How many unsatisfactory answers were refined, of those that were to be."""
    found = section(summary, "refined")
    if number(found.get("refined")) is None:
        return None
    lost = [f"{value} {key.replace('_', ' ')}" for key, value in found.items() if value and key in LEFT_OUT]
    reading = f"Unsatisfactory answers that the refiner wrote anew{'; left out: ' + ', '.join(lost) if lost else ''}."
    return Row("refined", "answers refined", "", f"{found['refined']} of {found.get('asked')}", "", "", reading)


def _row(key: str, label: str, found: Mapping[str, Any], reading: str, tone: str) -> Row | None:
    if number(found.get("after")) is None:
        return None
    change = decimal(100 * found["difference"], 0, sign=True, unit=" %")
    ends = found.get("ci95")
    low, high = (decimal(100 * end, 0, sign=True, unit=" %") for end in ends) if isinstance(ends, list) else ("", "")
    bounds = f"[{low}, {high}]" if low else ""
    return Row(key, label, percent(found["before"], 0), percent(found["after"], 0), change, bounds, reading, tone)


def _told(found: Mapping[str, Any]) -> tuple[str, str]:
    low, high = found.get("ci95", (0.0, 0.0))
    if low > 0:
        return "It rose by more than chance explains.", "good"
    if high < 0:
        return "It fell by more than chance explains.", "bad"
    return "The interval includes zero: no change is told.", "plain"
