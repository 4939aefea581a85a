"""A figure that needs no display, and its PNG. matplotlib is imported when one is made."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, background: str = "white", layout: Any = "constrained") -> Figure:
    """An empty figure, in inches, on a canvas of its own, not pyplot's: no global state, nothing to close.

    Args:
        layout: a name or an engine of matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG, 120 dots an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
