"""Pictures of how well a model ranks held-out pairs: its reliability curve, and its accuracy by length difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.evaluation.curves import DARK, LIGHT
from alignment.evaluation.figure import new_figure, png
from alignment.evaluation.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "ranking.png"


def plot_ranking(folder: Path | str, summary: Mapping[str, Any]) -> Path | None:
    """Write ranking.png for a run whose summary holds a ranking; None for any other."""
    panels = _panels(summary)
    return write_atomically(Path(folder) / NAME, _draw(panels, dark=False)) if panels else None


def ranking_panels(summary: Mapping[str, Any], dark: bool = False) -> list[tuple[str, bytes]]:
    """(title, PNG) of each picture, for a page that lays them out itself."""
    return [(title, _draw([(title, draw)], dark)) for title, draw in _panels(summary)]


def _panels(summary: Mapping[str, Any]) -> list[tuple[str, Callable[[Axes, Sequence[str]], None]]]:
    calibration, by_length = summary.get("calibration") or {}, summary.get("by_length") or []
    found: list[tuple[str, Callable[[Axes, Sequence[str]], None]]] = []
    if calibration.get("bins"):
        found.append(("Reliability", lambda axes, theme: _reliability(axes, calibration, theme)))
    if by_length:
        found.append(("Accuracy by length", lambda axes, theme: _by_length(axes, by_length, theme)))
    return found


def _reliability(axes: Axes, calibration: Mapping[str, Any], theme: Sequence[str]) -> None:
    text, _, background, first, *_ = theme
    bins = calibration["bins"]
    axes.plot([0.5, 1], [0.5, 1], color=text, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.5)
    axes.plot(
        [entry["confidence"] for entry in bins], [entry["accuracy"] for entry in bins], color=first, linewidth=1.6
    )
    for entry in bins:
        _with_interval(axes, entry["confidence"], entry, first, background)
    ece = calibration.get("ece")
    if ece is not None:
        axes.text(0.98, 0.04, f"ECE {ece:.3f}", transform=axes.transAxes, ha="right", fontsize=9, color=text)
    axes.set_xlim(0.48, 1.02)
    axes.set_xlabel("confidence of the verdict", fontsize=8.5, color=text)


def _by_length(axes: Axes, quarters: Sequence[Mapping[str, Any]], theme: Sequence[str]) -> None:
    text, _, background, first, *_ = theme
    axes.axhline(0.5, color=text, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.5)
    for place, entry in enumerate(quarters):
        _with_interval(axes, place, entry, first, background)
    axes.set_xlim(-0.5, len(quarters) - 0.5)
    axes.set_xticks(range(len(quarters)), [f"{entry['from']:+,} to {entry['to']:+,}" for entry in quarters])
    axes.set_xlabel("tokens by which the better answer is longer", fontsize=8.5, color=text)


def _with_interval(axes: Axes, x: float, entry: Mapping[str, Any], colour: str, background: str) -> None:
    low, high = entry["ci95"]
    axes.plot([x, x], [low, high], color=colour, linewidth=1.2, alpha=0.7)
    axes.plot([x], [entry["accuracy"]], "o", ms=5.5, mfc=background, mec=colour, mew=1.6)
    axes.annotate(
        f"{entry['n']:,}", (x, high), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5, color=colour
    )


def _draw(panels: Sequence[tuple[str, Callable[[Axes, Sequence[str]], None]]], dark: bool) -> bytes:

    theme = DARK if dark else LIGHT
    text, grid, background = theme[:3]
    figure = new_figure(5.0 * len(panels), 3.1, background)
    for axes, (title, draw) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_facecolor(background)
        draw(axes, theme)
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=text)
        axes.set_ylabel("share ranked right (95 % interval)", fontsize=8.5, color=text)
        axes.set_ylim(-0.03, 1.14)
        axes.grid(color=grid, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=text, labelsize=8.5, length=0)
        axes.spines[:].set_visible(False)
    return png(figure)
