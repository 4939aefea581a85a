"""The training curves of a run: metrics.jsonl -> curves.png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignment.errors import UserError
from alignment.evaluation.figure import new_figure, png
from alignment.evaluation.files import json_lines, write_atomically
from alignment.evaluation.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "curves.png"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Line:
    """One metric of a panel: the key of training rows, that of evaluation rows, and its colour's place in the theme."""

    label: str
    key: str
    eval_key: str
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """What is drawn together, with one scale."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    level: float | None = None  # a dashed line: what chance, or no training, gives
    bounds: tuple[float, float] | None = None


PANELS = (
    Panel("Loss", "loss per example", (Line("training", "loss", "eval_loss"),)),
    Panel(
        "Accuracy",
        "share of pairs ranked right",
        (Line("training", "accuracy", "eval_accuracy"),),
        level=0.5,
        bounds=(-0.03, 1.03),
    ),
    Panel("Margin", "chosen - rejected reward", (Line("training", "margin", "eval_margin"),), level=0.0),
    Panel(
        "Rewards",
        "reward",
        (
            Line("chosen", "chosen_reward", "eval_chosen_reward"),
            Line("rejected", "rejected_reward", "eval_rejected_reward", colour=1),
        ),
        level=0.0,
    ),
    Panel("Likelihood", "nats per token", (Line("training", "nats_per_token", "eval_nats_per_token"),)),
    Panel("Reward of samples", "reward", (Line("training", "reward", "eval_reward"),)),
    Panel("KL", "nats from the reference", (Line("training", "kl", "eval_kl"),), level=0.0),
    Panel("Length of samples", "tokens", (Line("training", "length", "eval_length"),)),
    Panel("Gradient norm", "L2 norm before clipping", (Line("training", "grad_norm", ""),)),
)
# Text, grid, background, first line, second line, held-out points. Blue, orange and a dark or light neutral: told apart
# with any colour vision, and by marker and shape as well.
LIGHT = ("#1f2430", "#d9dde5", "#ffffff", "#2563c9", "#d9691a", "#111827")
DARK = ("#d5dae3", "#333b49", "#161a21", "#6ea8ff", "#ff9d5c", "#f3f4f6")


def read_metrics(folder: Path | str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows and evaluation rows of metrics.jsonl, each by step.

    A resumed run may have written a step twice: the later row counts.
    """
    path = Path(folder) / METRICS
    if not path.is_file():
        raise UserError(f"no {METRICS} in {folder}: the run logged nothing")
    train: dict[float, dict[str, Any]] = {}
    held_out: dict[float, dict[str, Any]] = {}
    for row in json_lines(path):
        step = number(row.get("step"))
        if step is None:
            continue
        rows = held_out if any(key.startswith("eval_") for key in row) else train
        rows[step] = row
    return [train[step] for step in sorted(train)], [held_out[step] for step in sorted(held_out)]


def plot_curves(folder: Path | str) -> Path:
    """Write curves.png (the first four of PANELS of which something was logged) and return its path."""
    return write_atomically(Path(folder) / NAME, draw(folder))


def draw(folder: Path | str) -> bytes:
    """The curves of the run in `folder` as one PNG."""
    train, held_out = read_metrics(folder)
    return _draw(logged(train, held_out)[:4] or [PANELS[0]], train, held_out)


def logged(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> list[Panel]:
    """The panels of which the run logged something."""
    return [panel for panel in PANELS if any(_has(train, held_out, line) for line in panel.lines)]


def _draw(panels: Sequence[Panel], train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> bytes:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    theme = LIGHT
    rows, columns = (len(panels) + 1) // 2, min(2, len(panels))
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.03)
    figure = new_figure(5.0 * columns, 3.1 * rows, theme[2], layout)
    grid = figure.add_gridspec(rows, columns)
    for place, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(grid[divmod(place, columns)]), panel, train, held_out, theme)
    _legend(figure, panels, train, held_out, theme)
    return png(figure)


def _has(train: list[dict[str, Any]], held_out: list[dict[str, Any]], line: Line) -> bool:
    return len(series(train, line.key)[0]) > 0 or len(series(held_out, line.eval_key)[0]) > 0


def series(rows: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of `key`, rows without a finite value left out; two arrays of one length."""
    points = [(float(row["step"]), value) for row in rows if (value := number(row.get(key))) is not None]
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    return np.asarray(steps, dtype=float), np.asarray(values, dtype=float)


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean over about an eighth of the points (cut off at both ends), shape kept."""
    half = max(2, len(values) // 16)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, end = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return (sums[end] - sums[start]) / (end - start)


def _draw_panel(
    axes: Axes, panel: Panel, train: list[dict[str, Any]], held_out: list[dict[str, Any]], theme: Sequence[str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    text, grid, background, *colours, point = theme
    axes.set_facecolor(background)
    if panel.level is not None:
        axes.axhline(panel.level, color=text, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.5, zorder=1)
    for line in panel.lines:
        colour = colours[line.colour]
        steps, values = series(train, line.key)
        if len(steps) >= 8:
            axes.plot(steps, values, color=colour, linewidth=0.9, alpha=0.3, zorder=2)
            axes.plot(steps, smooth(values), color=colour, linewidth=2, zorder=3)
        elif len(steps):
            axes.plot(steps, values, color=colour, linewidth=1.6, marker="o", markersize=4, zorder=3)
        steps, values = series(held_out, line.eval_key)
        edge = point if len(panel.lines) == 1 else colour
        axes.plot(steps, values, "o", ms=5.5, mfc=background, mec=edge, mew=1.6, zorder=4)
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold", color=text)
    axes.set_ylabel(panel.unit, fontsize=8.5, color=text)
    axes.set_xlabel("optimizer step", fontsize=8.5, color=text)
    if panel.bounds:
        axes.set_ylim(*panel.bounds)
    first, last = axes.get_xlim()
    if last - first < 5:  # a few steps: whole ones on the axis, and room beside them
        axes.set_xlim(np.floor(first) - 0.5, np.ceil(last) + 0.5)
    axes.grid(color=grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=text, labelsize=8.5, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.spines[:].set_visible(False)
    _label_lines(axes, panel, train, theme)


def _label_lines(axes: Axes, panel: Panel, train: list[dict[str, Any]], theme: Sequence[str]) -> None:
    """Several lines in one panel are named in it; a single one is named by the panel's title."""
    if len(panel.lines) < 2:
        return
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=theme[3 + line.colour], linewidth=2, label=line.label)
        for line in panel.lines
        if len(series(train, line.key)[0])
    ]
    axes.legend(handles=handles, loc="best", frameon=False, fontsize=8.5, labelcolor=theme[0])


def _legend(
    figure: Figure,
    panels: Sequence[Panel],
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
    theme: Sequence[str],
) -> None:
    """One legend under the figure: what faint, strong and dotted marks are."""
    from matplotlib.lines import Line2D

    lines = [line for panel in panels for line in panel.lines]
    points = max((len(series(train, line.key)[0]) for line in lines), default=0)
    handles = []
    if points >= 8:
        handles.append(Line2D([], [], color=theme[3], linewidth=2, label="training, smoothed"))
        handles.append(Line2D([], [], color=theme[3], linewidth=1, alpha=0.4, label="training, as logged"))
    elif points:
        handles.append(Line2D([], [], color=theme[3], marker="o", markersize=4, label="training"))
    if any(len(series(held_out, line.eval_key)[0]) for line in lines):
        mark: dict[str, Any] = {"marker": "o", "markerfacecolor": theme[2], "markeredgecolor": theme[5]}
        handles.append(Line2D([], [], linestyle="", markeredgewidth=1.6, label="held-out pairs", **mark))
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8.5, labelcolor=theme[0]
        )
