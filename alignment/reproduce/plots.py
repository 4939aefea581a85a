"""Figures that several tables draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.evaluation.agreement import Estimate
from alignment.evaluation.figure import new_figure
from alignment.reproduce.rows import Row
from alignment.reproduce.sweep import curve_of, table_of


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any) -> tuple[Any, np.ndarray]:
    """A figure that needs no display, and its axes, (rows, columns)."""
    figure = new_figure(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def bars(found: Sequence[Estimate]) -> list[list[float]]:
    """How far the intervals reach below and above the figures, as matplotlib's error bars want it, (2, n)."""
    return [[each.value - each.low for each in found], [each.high - each.value for each in found]]


def reward_over_kl(
    rows: Sequence[Row], methods: Iterable[str], coefficient: str, start: Mapping[str, Any], reward: str
) -> Any:
    """Reward over KL, means over seeds and prompts: each method's points in the order of their KL, from the start on.

    Args:
        coefficient: the entry of a job that tells the points of a method apart.
        start: of the job of the model before training.
        reward: the axis in words.
    """
    figure, axes = canvas(7, 4.4)
    plot = axes[0, 0]
    before = float(table_of(rows, "reward", start).mean())
    curves = {name: curve_of(rows, {"method": name}, [coefficient]) for name in methods}
    for number, (name, curve) in enumerate((name, curve) for name, curve in curves.items() if curve is not None):
        points = zip(curve.kl.mean((0, 2)).tolist(), curve.reward.mean((0, 2)).tolist(), strict=True)
        plot.plot(*zip((0.0, before), *sorted(points), strict=True), "-o", ms=4, lw=1.2, color=f"C{number}", label=name)
    plot.plot(0, before, "k*", ms=10, label="start")
    plot.set_xlabel("KL to the start, nats an answer")
    plot.set_ylabel(reward)
    plot.grid(alpha=0.3)
    plot.legend(frameon=False)
    return figure
