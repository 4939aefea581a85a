"""The win rates of all pairs of models as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.evaluation.curves import LIGHT
from alignment.evaluation.figure import new_figure, png
from alignment.evaluation.text import shortened, visible

NAME = "pairs-{}.png"
LONGEST = 24  # characters of a name


def draw(names: Sequence[str], rates: np.ndarray, title: str) -> bytes:
    """A PNG of win rates (K, K) in [0, 1], best model on top: the row's model against the column's."""

    text, _, background, *_ = LIGHT
    means = [row[np.isfinite(row)].mean() if np.isfinite(row).any() else 0.0 for row in rates]
    order = np.argsort(-np.asarray(means), kind="stable")
    rates, shown = rates[np.ix_(order, order)], [_short(visible(names[at])) for at in order]
    count = len(shown)
    figure = new_figure(2.6 + 0.85 * count, 1.9 + 0.6 * count, background)
    axes = figure.subplots()
    # Violet and orange, white at one half: told apart with any colour vision, and every cell has its number.
    picture = axes.imshow(100 * rates, cmap="PuOr_r", vmin=0, vmax=100, aspect="auto")
    for row in range(count):
        for column in range(count):
            value = rates[row, column]
            if np.isfinite(value):
                red, green, blue, _ = picture.cmap(value)
                colour = background if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else text
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=10, color=colour)
    axes.set_xticks(range(count), shown, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), shown)
    axes.tick_params(colors=text, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(shortened(visible(title), 60), loc="left", fontsize=11, fontweight="bold", color=text)
    axes.set_xlabel("against", fontsize=8.5, color=text)
    bar = figure.colorbar(picture, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label("win rate of the row, per cent", fontsize=8.5, color=text)
    bar.ax.tick_params(colors=text, labelsize=8, length=0)
    bar.outline.set_visible(False)
    return png(figure)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
