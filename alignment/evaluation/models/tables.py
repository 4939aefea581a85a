"""The cells as tables of plain text: what the terminal, the Markdown file and the page show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from alignment.evaluation.metrics.ranking import Standing
from alignment.evaluation.models.cells import Cell
from alignment.evaluation.text import NOTHING, decimal, number, percent, visible

PERCENT = ("cut", "empty", "repetition", "refusals")
# Cells of the section `answers` in columns: metric, heading, digits. A column that no model has is left out.
ANSWERS = (
    ("words", "words", 1),
    ("tokens", "tokens", 1),
    ("cut", "cut", 1),
    ("empty", "empty", 1),
    ("repetition", "repetition", 1),
    ("refusals", "refusals", 1),
)
DIVERSITY = ("distinct-1", "distinct-2", "EAD", "self-BLEU")
READ = (  # by models
    ("embedding distance, per input", "embedding distance\nper input", 3),
    ("embedding distance, across inputs", "embedding distance\nacross inputs", 3),
    ("NLI, per input", "NLI\nper input", 3),
)
LIKELIHOOD = (
    ("kl", "", 2),
    ("entropy", "entropy\n(nats per token)", 2),
    ("perplexity per token", "perplexity\nper token", 1),
    ("perplexity per byte", "perplexity\nper byte", 2),
)


@dataclass(frozen=True)
class Table:
    """Cells ready to show; the first column is the model's name. Text in them is `visible`, and not escaped."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def tables(
    cells: Sequence[Cell], prompts: int, baseline: str, standings: dict[str, list[Standing]], kl: str
) -> list[Table]:
    """All tables, in the order in which they are read.

    Args:
        prompts: how many were asked.
        standings: the ranking of each judge.
        kl: the heading of the mean log-ratios, which are a KL under some sampling settings alone.
    """
    found: list[Table] = []
    for name in _names(cells, "judge"):
        found.append(
            _duel_table(name, [cell for cell in cells if (cell.section, cell.of) == ("judge", name)], baseline)
        )
        if standings.get(name):
            found.append(_ranking_table(name, standings[name]))
    for name in _names(cells, "score"):
        own = [cell for cell in cells if (cell.section, cell.of) == ("score", name)]
        found.append(_score_table(name, own, baseline))
    answers = [cell for cell in cells if cell.section == "answers"]
    found.append(_with_answered(_answer_table("Answers", answers, ANSWERS), answers, prompts))
    likelihood = [(key, heading or kl, digits) for key, heading, digits in LIKELIHOOD]
    found.append(_answer_table("Likelihood", answers, likelihood))
    for kind in ("per input", "across inputs"):
        wanted = [(f"{metric}, {kind}", metric, 3) for metric in DIVERSITY]
        found.append(_answer_table(f"Diversity {kind}", answers, wanted))
    found.append(_answer_table("Diversity as models read it", answers, READ))
    found.append(_task_table([cell for cell in cells if cell.section == "task"]))
    return [table for table in found if table.rows]


def _names(cells: Sequence[Cell], section: str) -> list[str]:
    return list(dict.fromkeys(cell.of for cell in cells if cell.section == section))


def _duel_table(name: str, cells: Sequence[Cell], baseline: str) -> Table:
    controlled = {cell.model: cell for cell in cells if cell.metric == "length-controlled"}
    rows = []
    for cell in cells:
        if cell.metric != "win rate":
            continue
        counts = cell.counts
        rows.append(
            [
                visible(cell.model),
                _share(cell),
                _share(controlled[cell.model]),
                " / ".join(f"{counts[key]:,.0f}" for key in ("wins", "ties", "losses")),
                f"{counts['no verdict']:,.0f}",
                decimal(counts["orders disagree"], 0),
                p_value(cell.p_adjusted),
            ]
        )
    columns = ["model", "win rate", "length\ncontrolled", "wins / ties\n/ losses", "no\nverdict", "orders\ndisagree"]
    columns += ["p (Holm)"]
    title = f"Win rate against {visible(baseline)}, by {visible(name)}"
    if all(
        cell.counts["orders disagree"] != cell.counts["orders disagree"] for cell in cells if cell.metric == "win rate"
    ):
        return Table(title, columns[:5] + columns[6:], [row[:5] + row[6:] for row in rows])
    return Table(title, columns, rows)


def _ranking_table(name: str, standings: Sequence[Standing]) -> Table:
    rows = []
    for each in standings:
        bounds = _bounds(each.low, each.high, lambda value: decimal(value, 0))
        rating = f"{decimal(each.rating, 0)} {bounds if each.bounded else '(no bound)'}".strip()
        ranks = "" if each.rank_low == each.rank_high else f" [{each.rank_low}, {each.rank_high}]"
        rows.append([visible(each.model), rating, f"{each.rank}{ranks}"])
    return Table(f"Ranking by {visible(name)} over all pairs", ["model", "Bradley–Terry, Elo points", "rank"], rows)


def _score_table(name: str, cells: Sequence[Cell], baseline: str) -> Table:
    rows = []
    for cell in cells:
        apart = ""
        if cell.model != baseline:
            bounds = _bounds(cell.difference_low, cell.difference_high, lambda value: decimal(value, 3, sign=True))
            apart = f"{decimal(cell.difference, 3, sign=True)} {bounds}".strip()
        mean = f"{decimal(cell.value, 3)} {_bounds(cell.low, cell.high, lambda value: decimal(value, 3))}".strip()
        no_verdict = f"{cell.counts['no verdict']:,.0f}"
        rows.append([visible(cell.model), mean, no_verdict, apart, p_value(cell.p_adjusted)])
    columns = ["model", "mean", "no\nverdict", "less the\nbaseline's", "p (Holm)"]
    if len(rows) == 1:  # there is nothing to compare it with
        return Table(f"Score: {visible(name)}", columns[:3], [row[:3] for row in rows])
    return Table(f"Score: {visible(name)}; baseline: {visible(baseline)}", columns, rows)


def _answer_table(title: str, cells: Sequence[Cell], wanted: Sequence[tuple[str, str, int]]) -> Table:
    known = {(cell.metric, cell.model): cell for cell in cells}
    columns = [each for each in wanted if any(metric == each[0] for metric, _ in known)]
    columns = [each for each in columns if each[0] != "empty" or any(cell.value for cell in _of(cells, "empty"))]
    models = list(dict.fromkeys(cell.model for cell in cells)) if columns else []
    rows = [
        [visible(model), *(_value(known.get((metric, model)), digits) for metric, _, digits in columns)]
        for model in models
    ]
    return Table(title, ["model", *(heading for _, heading, _ in columns)], rows)


def _with_answered(table: Table, cells: Sequence[Cell], prompts: int) -> Table:
    """The table with the number of prompts that each model answered, where one has left some out."""
    answered = {visible(cell.model): cell.n for cell in _of(cells, "words")}
    if not table.rows or all(count == prompts for count in answered.values()):
        return table
    rows = [[row[0], f"{answered.get(row[0], 0):,} of {prompts:,}", *row[1:]] for row in table.rows]
    return Table(table.title, [table.columns[0], "answered", *table.columns[1:]], rows)


def _task_table(cells: Sequence[Cell]) -> Table:
    columns = list(dict.fromkeys((cell.of, cell.metric) for cell in cells))
    known = {(cell.of, cell.metric, cell.model): cell for cell in cells}
    rows = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [known.get((*column, model)) for column in columns]
        rows.append([visible(model), *("" if cell is None else _plus_minus(cell, 3) for cell in own)])
    return Table("Benchmarks", ["model", *(f"{visible(task)}\n{visible(metric)}" for task, metric in columns)], rows)


def _of(cells: Sequence[Cell], metric: str) -> list[Cell]:
    return [cell for cell in cells if cell.metric == metric]


def _value(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return ""  # it has no meaning for this model
    if "se" in cell.counts:
        return _plus_minus(cell, digits, star(cell))
    if cell.metric in PERCENT:
        return _share(cell, star(cell))
    bounds = _bounds(cell.low, cell.high, lambda value: decimal(value, digits))
    return f"{decimal(cell.value, digits)}{star(cell)} {bounds}".strip()


def star(cell: Cell) -> str:
    """A mark where the number is another than the baseline's, allowing for all that were compared."""
    return "*" if cell.p_adjusted < 0.05 else ""


def _plus_minus(cell: Cell, digits: int, mark: str = "") -> str:
    error = cell.counts.get("se")
    shown = decimal(cell.value, digits) + mark
    return shown if number(error) is None else f"{shown} ± {decimal(error, digits)}"


def _share(cell: Cell, mark: str = "") -> str:
    bounds = _bounds(cell.low, cell.high, lambda value: decimal(100 * value, 1))
    return f"{percent(cell.value)}{mark} {bounds}".strip()


def _bounds(low: float, high: float, shown: Callable[[float], str]) -> str:
    return f"[{shown(low)}, {shown(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def p_value(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def render(found: Sequence[Table], notes: Sequence[str], console: Console) -> None:
    """Print the tables, and the notes below them."""
    for table in found:
        shown = RichTable(
            box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), title=Text(table.title), title_justify="left",
            title_style="bold",
        )  # fmt: skip
        for place, column in enumerate(table.columns):
            width = max(map(len, column.split("\n"))) if place else 1
            shown.add_column(Text(column), justify="right" if place else "left", overflow="fold", min_width=width)
        for row in table.rows:
            shown.add_row(*(Text(cell or (NOTHING if place else "")) for place, cell in enumerate(row)))
        console.print(shown)
    for note in notes:
        console.print(Text(visible(note)), style="dim", soft_wrap=True)


def markdown(found: Sequence[Table], notes: Sequence[str], title: str) -> str:
    """The same as a Markdown file."""
    lines = [f"# {_md(title)}"]
    for table in found:
        lines += ["", f"## {_md(table.title)}", "", _line(table.columns)]
        lines += [_line(["---", *["--:"] * (len(table.columns) - 1)], plain=True), *map(_line, table.rows)]
    lines += ["", *(f"- {_md(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str], plain: bool = False) -> str:
    return f"| {' | '.join(cells if plain else map(_md, cells))} |"


def _md(text: str) -> str:
    """Plain words inside Markdown: on one line, what it or HTML would interpret escaped."""
    line = " ".join(visible(text).split())
    return "".join(f"\\{char}" if char in "\\`*_<>|#" else char for char in line)
