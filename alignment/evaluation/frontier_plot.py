"""The picture of a sweep's frontiers: reward over KL, a line and its band for each method."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from alignment.evaluation.curves import LIGHT
from alignment.evaluation.figure import new_figure, png
from alignment.evaluation.frontier import Frontiers, Group
from alignment.evaluation.text import shortened, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart with any colour vision, and a marker each; ten groups before one comes again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D31", "#7A3E9D", "#B22222")
MARKERS = "osD^vPXp<>"


def draw(found: Frontiers, furthest: float | None = None, title: str = "") -> bytes:
    """The frontiers as one PNG.

    Args:
        furthest: x up to which it goes; what lies beyond is counted in the legend. None: a little beyond the last point
            of any frontier that is not dominated.
    """

    text, grid, background, *_ = LIGHT
    figure = new_figure(8.2, 5.2, background)
    axes = figure.subplots()
    end = furthest or _furthest(found)
    for place, group in enumerate(found.groups):
        _group(axes, group, place, end, found.through)
    if found.start is not None:
        axes.plot([0], [found.start], "*", ms=11, color=text, label="before training", zorder=6, clip_on=False)
    if found.limits is not None and any(math.isfinite(group.area.value) for group in found.groups):
        for limit in found.limits:
            axes.axvline(limit, color=text, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.45, zorder=1)
    _axes(axes, found, end)
    axes.set_title(visible(title) or "KL–reward frontier", loc="left", fontsize=11, fontweight="bold")
    axes.legend(loc="best", frameon=True, framealpha=0.85, edgecolor=grid, fontsize=8.5, labelcolor=text)
    figure.supxlabel(_caption(found), fontsize=7.5, color=text, x=0.01, ha="left")
    return png(figure)


def _furthest(found: Frontiers) -> float:
    """The last place where some frontier still rises; of groups without one, their last point."""
    shown = [point for group in found.groups for point in group.points if point.nondominated or group.line is None]
    ends = [point.x + min(float(np.nan_to_num(point.x_se)), 0.25 * abs(point.x)) for point in shown]
    ends += [group.span[0] for group in found.groups if group.points]
    return max(ends, default=1.0) * 1.06 or 1.0


def _group(axes: Axes, group: Group, place: int, end: float, through: str) -> None:
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    beyond = sum(point.x > end for point in group.points)
    lost = len(group.settings) - len(group.points)
    said = [f"{beyond} beyond"] * bool(beyond) + [f"{lost} without a point"] * bool(lost)
    said += ["too few points for a line"] * bool(group.why_not)
    label = shortened(visible(group.name), 40) + (f" ({', '.join(said)})" if said else "")
    if len(group.low):
        axes.fill_between(group.grid[0], group.low, group.high, color=colour, alpha=0.11, linewidth=0, zorder=2)
    if group.line is not None:
        x, y = group.grid
        measured = x >= group.span[0]
        before = x <= group.span[0]
        axes.plot(x[before], y[before], color=colour, linewidth=1.2, linestyle=(0, (1, 2)), zorder=3)
        axes.plot(x[measured], y[measured], color=colour, linewidth=1.9, zorder=4)
    for point in (point for point in group.points if point.x <= end):
        on_line = point.nondominated or through == "all" or group.line is None
        if len(point.runs) > 1:
            axes.plot(
                [run.x.mean for run in point.runs],
                [run.y.mean for run in point.runs],
                marker,
                ms=3.5,
                alpha=0.4,
                color=colour,
                mew=0,
                zorder=3,
            )
        errors: dict[str, Any] = {"xerr": np.nan_to_num(point.x_se), "yerr": np.nan_to_num(point.y_se)}
        face = colour if on_line else "white"
        style: dict[str, Any] = {"ms": 6, "mfc": face, "mec": colour, "ecolor": colour, "elinewidth": 0.8}
        axes.errorbar([point.x], [point.y], **errors, fmt=marker, **style, zorder=5)
    axes.plot([], [], marker=marker, color=colour, linewidth=0 if group.line is None else 1.9, ms=6, label=label)


def _axes(axes: Axes, found: Frontiers, end: float) -> None:
    text, grid, background, *_ = LIGHT
    axes.set_facecolor(background)
    low = min([0.0, *(point.x for group in found.groups for point in group.points)])
    axes.set_xlim(min(low, -0.01 * end), end)
    seen = [point.y for group in found.groups for point in group.points if point.x <= end]
    seen += [value for group in found.groups for edge in (group.low, group.high) for value in edge]
    seen += [found.start] if found.start is not None else []
    if seen:
        room = 0.06 * ((max(seen) - min(seen)) or 1.0)
        axes.set_ylim(min(seen) - room, max(seen) + room)
    axes.set_xlabel("KL to the reference, nats an answer" if found.sweep.x == "kl" else visible(found.sweep.x))
    axes.set_ylabel(visible(f"{found.sweep.y}: {found.sweep.y_name}" if found.sweep.y_name else found.sweep.y))
    axes.grid(color=grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=text, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)


def _caption(found: Frontiers) -> str:
    """What the marks are, on a line or two under the axis."""
    filled = "Filled: not dominated, joined by the line." if found.through == "nondominated" else "Line: all points."
    parts = [filled, "Bars: standard error between seeds, of one run over its prompts."]
    if any(len(group.low) for group in found.groups):
        over = {"seeds": "seeds and prompts", "prompts": "prompts alone, not over seeds"}[found.band]
        parts.append(f"Band: 95 % over {over}.")
    elif found.band != "none":
        parts.append("No band: one seed of some setting.")
    return textwrap.fill(" ".join(parts), 140)
