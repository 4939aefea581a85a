"""What `align judge audit` shows: one table, a column a data set, and one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignment.evaluation.agreement import Estimate
from alignment.evaluation.curves import LIGHT
from alignment.evaluation.figure import new_figure, png
from alignment.evaluation.judge_audit import Audit
from alignment.evaluation.text import NOTHING, decimal, number, percent, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Heading, key of the estimates, whether it is a share.
ROWS = (
    ("agreement with people (a tie is half)", "agreement", True),
    ("agreement without ties", "agreement without ties", True),
    ("Cohen's kappa", "kappa", False),
    ("two people with each other *", "human-human agreement", True),
    ("the judge with one of them *", "agreement with one human", True),
    ("answer shown first preferred (fair: 50 %)", "first preferred", True),
    ("verdict flips with the order", "flips with the order", True),
    ("agreement where the longer is better", "agreement, longer is better", True),
    ("agreement where the shorter is better", "agreement, shorter is better", True),
    ("log-odds per SD of length (fair: 0)", "length coefficient", False),
    ("same verdict when asked again", "same verdict again", True),
    ("circles a ≻ b ≻ c ≻ a", "circles", True),
    ("no verdict", "no verdict", True),
)
_HEADING, _COLUMN = 42, 24  # widths in characters


def render(audits: Sequence[Audit], console: Console) -> None:
    """Print the table; where it is too wide for the terminal, in pieces below each other."""
    at_once = max(1, (console.width - _HEADING) // _COLUMN)
    for start in range(0, len(audits), at_once):
        console.print(_table(audits[start : start + at_once]))
    notes = ["Both orders of every pair are asked. In brackets the 95 % interval, over prompts."]
    if any(audit.estimates["flips with the order"].n == 0 for audit in audits):
        notes.append("The order cannot matter to a comparison of two scores: it was not asked.")
    console.print(Text(" ".join(notes), style="dim"))


def _table(audits: Sequence[Audit]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("", overflow="fold")
    for audit in audits:
        heading = f"{visible(short(audit.name))}\n{audit.items:,} pairs, {audit.prompts:,} prompts"
        table.add_column(Text(heading), justify="right", overflow="fold")
    for heading, key, is_share in ROWS:
        found = [audit.estimates[key] for audit in audits]
        if any(number(estimate.value) is not None for estimate in found):
            table.add_row(heading, *(_cell(estimate, is_share) for estimate in found))
        if key == "agreement with one human" and any(audit.counts["several annotators"] for audit in audits):
            table.add_row(
                "* pairs labelled by several people", *(f"{a.counts['several annotators']:,}" for a in audits)
            )
    return table


def _cell(estimate: Estimate, is_share: bool) -> str:
    """`61.2 % [58.1, 64.0]`, or `0.31 [0.24, 0.38]`."""
    value, *bounds = estimate[:3]
    text = percent(value) if is_share else decimal(value)
    if text == NOTHING or any(number(bound) is None for bound in bounds):
        return text
    low, high = (decimal(100 * bound, 1) if is_share else decimal(bound) for bound in bounds)
    return f"{text} [{low}, {high}]"


def short(name: str) -> str:
    """`pandalm/test` of a path: the file without its endings, and its folder."""
    path = Path(name)
    return "/".join([*path.parts[-2:-1], path.name.split(".")[0] or path.name]) if path.suffix else name


def draw(audits: Sequence[Audit], title: str = "") -> bytes:
    """Agreement, length and position of every data set as one PNG; bars are 95 % intervals."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    text, grid, background, *_ = LIGHT
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03)
    figure = new_figure(12.0, 1.9 + 0.42 * len(audits), background, layout)
    panels: list[Any] = list(figure.subplots(1, 3, sharey=True))
    _panel(panels[0], audits, "Agreement with people", (("agreement", "judge", 0, "o"), _HUMANS))
    _panel(panels[1], audits, "Agreement where people prefer", _LENGTHS)
    _panel(panels[2], audits, "Position", _POSITION)
    panels[0].set_yticks(range(len(audits)), [visible(short(audit.name)) for audit in audits])
    panels[0].set_ylim(len(audits) - 0.4, -0.6)
    if title:
        figure.suptitle(visible(title), x=0.01, ha="left", fontsize=11, fontweight="bold", color=text)
    for axes in panels:
        axes.set_facecolor(background)
        axes.grid(color=grid, linewidth=0.7, axis="x")
        axes.tick_params(colors=text, labelsize=8.5, length=0)
        axes.spines[:].set_visible(False)
    return png(figure)


_HUMANS = ("human-human agreement", "two people with each other", 1, "D")
_LENGTHS = (
    ("agreement, longer is better", "the longer answer", 0, ">"),
    ("agreement, shorter is better", "the shorter answer", 1, "<"),
)
_POSITION = (
    ("first preferred", "answer shown first preferred", 0, "o"),
    ("flips with the order", "verdict flips with the order", 1, "X"),
)


def _panel(axes: Axes, audits: Sequence[Audit], title: str, series: Sequence[tuple[str, str, int, str]]) -> None:
    """One row a data set; a series is (key, label, colour of the theme, marker)."""
    text, _, _, *colours = LIGHT
    axes.axvline(50, color=text, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.5, zorder=1)
    for place, (key, label, colour, marker) in enumerate(series):
        shown = [(row, audit.estimates[key]) for row, audit in enumerate(audits)]
        shown = [(row, estimate) for row, estimate in shown if number(estimate.value) is not None]
        if not shown:
            continue
        offset = 0.12 * (2 * place - 1)
        rows = [row + offset for row, _ in shown]
        values = [100 * estimate.value for _, estimate in shown]
        axes.plot(values, rows, marker, color=colours[colour], ms=6, label=label, zorder=3, linestyle="")
        for row, estimate in zip(rows, (estimate for _, estimate in shown), strict=True):
            if number(estimate.low) is not None and number(estimate.high) is not None:
                bounds = [100 * estimate.low, 100 * estimate.high]
                axes.plot(bounds, [row, row], color=colours[colour], linewidth=1.6, zorder=2)
    axes.set_xlim(-3, 103)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=text, pad=38)
    axes.set_xlabel("per cent of verdicts", fontsize=8.5, color=text)
    # Two lines between the title and the rows, which leaves their place to the number of rows.
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0, frameon=False, fontsize=8.5, labelcolor=text
    )
