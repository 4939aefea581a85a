"""Line charts for pages: SVG whose colours follow the reader's background, with the values behind it for a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignment.evaluation.curves import Line, Panel, logged, read_metrics, series, smooth
from alignment.evaluation.text import number, visible

WIDTH, HEIGHT = 400, 230  # of the drawing, in its own units; the page scales it
MOST = 400  # points of a line; of more, each stretch keeps its lowest and its highest
COLOURS = 6  # in the page's style; further lines are dashed
_LETTER = 8.6  # width of a digit at the largest size in which the style writes the ticks
_RIGHT, _TOP, _BOTTOM = 14, 10, 26

Metrics = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # training rows and evaluation rows


@dataclass(frozen=True)
class Curve:
    """Values over steps, two arrays of one length. `faint` stands behind the others, `dots` are not joined.

    The page says the values of a curve that is `said`.
    """

    label: str
    steps: np.ndarray
    values: np.ndarray
    colour: int = 0
    kind: Literal["line", "faint", "dots"] = "line"
    said: bool = True


@dataclass(frozen=True)
class Chart:
    """Curves with one scale; `level` is a dashed line across, `bounds` are the ends of the scale."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    level: float | None = None
    bounds: tuple[float, float] | None = None


def run_charts(folder: Path | str) -> tuple[list[Chart], list[Chart]]:
    """The known panels of a run's metrics.jsonl, and charts of what else it logged.

    Raises:
        UserError: there is no metrics.jsonl.
    """
    train, held_out = read_metrics(folder)
    known = [_panel_chart(panel, train, held_out) for panel in logged(train, held_out)]
    return known, [_panel_chart(panel, train, held_out) for panel in _other_panels(train, held_out)]


def overlaid(names: Sequence[str], losses: Sequence[str], runs: Sequence[Metrics]) -> list[Chart]:
    """One chart a metric of the known panels, with a line for each run that logged it.

    `losses` names what each run minimised: different losses have no common scale, and a chart each.
    """
    found: dict[str, Chart] = {}
    for loss, (train, held_out) in zip(losses, runs, strict=True):
        for panel, line in ((each, line) for each in logged(train, held_out) for line in each.lines):
            title = panel.title if len(panel.lines) == 1 else f"{panel.title}: {line.label}"
            apart = line.key == "loss" and len(set(losses)) > 1
            title = f"{title}: {loss}" if apart else title
            if title not in found:
                places = [place for place, other in enumerate(losses) if other == loss or not apart]
                curves = [curve for place in places for curve in _overlaid(names[place], place, runs[place], line)]
                found[title] = Chart(title, panel.unit, tuple(curves), panel.level, panel.bounds)
    return list(found.values())


def _overlaid(name: str, place: int, metrics: Metrics, line: Line) -> Iterator[Curve]:
    train, held_out = metrics
    steps, values = series(train, line.key)
    if len(steps):
        yield Curve(name, steps, smooth(values) if len(steps) >= 8 else values, place)
    steps, values = series(held_out, line.eval_key)
    if len(steps):
        yield Curve(f"{name}, held-out", steps, values, place, "dots")


def _panel_chart(panel: Panel, train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> Chart:
    curves: list[Curve] = []
    for line in panel.lines:
        steps, values = series(train, line.key)
        if len(steps) >= 8:
            curves.append(Curve(line.label, steps, values, line.colour, "faint"))
            curves.append(Curve(line.label, steps, smooth(values), line.colour, said=False))
        elif len(steps):
            curves.append(Curve(line.label, steps, values, line.colour))
        steps, values = series(held_out, line.eval_key)
        if len(steps):
            label = "held-out" if len(panel.lines) == 1 else f"{line.label}, held-out"
            curves.append(Curve(label, steps, values, line.colour, "dots"))
    return Chart(panel.title, panel.unit, tuple(curves), panel.level, panel.bounds)


def _other_panels(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> list[Panel]:
    """Whatever else was logged as a number, by name."""
    known = {line.key for panel in logged(train, held_out) for line in panel.lines} | {"step", "epoch"}
    rows = [*train, *held_out]
    keys = {str(key).removeprefix("eval_") for row in rows for key, value in row.items() if number(value) is not None}
    return [Panel(key, "", (Line("training", key, f"eval_{key}"),)) for key in sorted(keys - known)]


def drawn(chart: Chart) -> dict[str, Any]:
    """The chart for templates/charts.html.j2: places in units of the drawing, and the values as they are said.

    `said` is for the script: where the first and the last step lie, and each curve's label, steps and values.
    """
    from matplotlib.ticker import MaxNLocator

    curves = [_thinned(curve) for curve in chart.curves]
    first, last = _ends([step for curve in curves for step in curve.steps], 0.0)
    ends = [value for curve in curves for value in curve.values]
    low, high = chart.bounds or _ends(ends if chart.level is None else [*ends, chart.level], 0.04)
    ticks = [
        (value, f"{value + 0.0:,.6g}") for value in MaxNLocator(nbins=4).tick_values(low, high) if low <= value <= high
    ]
    left = 10 + _LETTER * max((len(label) for _, label in ticks), default=0)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def across(step: float) -> float:
        return round(left + (right - left) * (step - first) / (last - first), 1)

    def down(value: float) -> float:
        return round(bottom - (bottom - _TOP) * (value - low) / (high - low), 1)

    whole = MaxNLocator(nbins=5, integer=True, min_n_ticks=1).tick_values(first, last)
    said = [
        [visible(curve.label), curve.steps.tolist(), [float(f"{value:.4g}") for value in curve.values]]
        for curve in curves
        if curve.said
    ]
    return {
        "title": visible(chart.title),
        "unit": visible(chart.unit),
        "size": (WIDTH, HEIGHT),
        "frame": (left, right, _TOP, bottom),
        "x": [(across(step), f"{step:,.0f}") for step in whole if first <= step <= last],
        "y": [(down(value), label) for value, label in ticks],
        "level": None if chart.level is None else down(chart.level),
        "curves": [
            {
                "kind": curve.kind,
                "style": style(curve.colour),
                "places": [(across(s), down(v)) for s, v in zip(curve.steps, curve.values, strict=True)],
            }
            for curve in curves
        ],
        "names": [(visible(c.label), style(c.colour)) for c in curves if c.kind == "line"],
        "last": _at_the_end(said),
        "said": {"left": left, "right": right, "from": first, "to": last, "curves": said},
    }


def _at_the_end(said: Sequence[Any]) -> str:
    """The last value of each curve, in the words of page.js."""
    last = max((steps[-1] for _, steps, _ in said), default=0.0)
    told = [
        f"{label} {values[-1]:,.4g}" + (f" (step {steps[-1]:,.0f})" if steps[-1] != last else "")
        for label, steps, values in said
    ]
    return f"step {last:,.0f}: {'; '.join(told)}"


def style(colour: int) -> str:
    """The classes that give the line of this place its colour and, from the seventh on, its dashes."""
    return f"c{colour % COLOURS} d{colour // COLOURS % 3}"


def _ends(values: Sequence[float], room: float) -> tuple[float, float]:
    """The least and the greatest value with some room beside them; never the same."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        return low - (abs(low) * 0.1 or 0.5), high + (abs(high) * 0.1 or 0.5)
    return low - room * (high - low), high + room * (high - low)


def _thinned(curve: Curve) -> Curve:
    """The curve with at most MOST points, so that a long run's page stays small and its peaks stay."""
    count = len(curve.steps)
    if count <= MOST:
        return curve
    kept: set[int] = {0, count - 1}
    for part in np.array_split(np.arange(count), MOST // 2 - 1):
        kept |= {int(part[np.argmin(curve.values[part])]), int(part[np.argmax(curve.values[part])])}
    places = sorted(kept)
    return replace(curve, steps=curve.steps[places], values=curve.values[places])
