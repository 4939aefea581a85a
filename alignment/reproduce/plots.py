"""Figures that several tables draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignment.evaluation.figure import new_figure


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Any, np.ndarray]:
    """A figure that needs no display, and its axes, (rows, columns)."""
    figure = new_figure(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def reward_over_kl(
    points: Mapping[str, Sequence[tuple[float, float]]], start: float, reward: str, furthest: float | None = None
) -> Any:
    """Reward over KL: of each method its points (KL, reward), joined in the order of their KL, from the start on."""
    figure, axes = canvas(7, 4.4)
    plot = axes[0, 0]
    for number, (name, found) in enumerate(points.items()):
        shown = sorted(point for point in found if furthest is None or point[0] <= furthest)
        beyond = len(found) - len(shown)
        label = f"{name} ({beyond} beyond)" if beyond else name
        plot.plot(*zip((0.0, start), *shown, strict=True), "-o", ms=4, lw=1.2, color=f"C{number}", label=label)
    plot.plot(0, start, "k*", ms=10, label="start")
    plot.set_xlabel("KL to the start, nats an answer")
    plot.set_ylabel(reward)
    plot.grid(alpha=0.3)
    plot.legend(frameon=False)
    return figure
