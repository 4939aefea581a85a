"""The pre-flight report on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from alignment.data.checks import CheckReport, Finding, JudgedAnswers
    from alignment.data.rating_agreement import RatingAgreement

_STYLES = {"prompt": "dim", "trained": "bold green", "cut": "red strike"}
_SHADES = ("", "underline")  # neighbouring tokens look different
_MOST_TOKENS = 400


def render(report: CheckReport, console: Console, most: int = 5) -> None:
    """Print what was read, the lengths, every check with its first `most` rows, and the verdict."""
    formats = ", ".join(f"{name} {count}" for name, count in report.formats.items())
    console.print(Text(f"{report.path}: {report.rows_read} rows, {report.kept} usable ({formats})"))
    counted = [f"{report.examples} examples", f"{report.pairs} pairs"]
    counted += [f"{report.labelled} labelled answers"] if report.labelled else []
    counted += [f"{count} × {why}" for why, count in report.left_out.items()]
    console.print(Text(", ".join(counted)))
    if report.judged is not None:
        console.print(Text(_judged(report.judged)))
    console.print(_lengths(report))
    _checks(report, console, most)
    if report.length_bias is not None:
        _length_bias(report, console)
    if report.ratings is not None:
        _ratings(report.ratings, console)
    for pieces in report.shown:
        _shown(pieces, console)
    problems = sum(len(found) for found in report.problems.values())
    verdict = f"problems: {problems} in {report.rows_read} rows" if report.wrong else "nothing wrong"
    console.print(Text(verdict, style="bold red" if report.wrong else "bold green"))


def _judged(found: JudgedAnswers) -> str:
    share = f" ({found.satisfactory / found.records:.1%})" if found.records else ""
    parts = [f"{found.records} judged answers, {found.satisfactory} satisfactory{share}"]
    hints = {"no verdict": " (--satisfied-from SCORE decides by the score)"}
    return ", ".join(parts + [f"{count} × {why}{hints.get(why, '')}" for why, count in found.counts.items()])


def _lengths(report: CheckReport) -> Table:
    table = Table(title=f"lengths in {report.unit}", title_justify="left")
    table.add_column("")
    for column in ("count", "mean", "median", "longest", "over the limit"):
        table.add_column(column, justify="right")
    for name, lengths in report.lengths.items():
        over = "not checked" if lengths.over_limit is None else str(lengths.over_limit)
        values = (str(lengths.count), f"{lengths.mean:.1f}", f"{lengths.median:.1f}", str(lengths.longest), over)
        table.add_row(name, *values)
    return table


def _checks(report: CheckReport, console: Console, most: int) -> None:
    files = {finding.file for found in (*report.problems.values(), *report.warnings.values()) for finding in found}
    for style, checks in (("red", report.problems), ("yellow", report.warnings)):
        for name, found in checks.items():
            console.print(Text(f"{name}: {len(found)}", style=style if found else "green"))
            for finding in found[:most]:
                console.print(Text(f"  {_place(finding, len(files) > 1)}: {finding.note}"))
            if len(found) > most:
                rows = ", ".join(_place(finding, len(files) > 1) for finding in found[most : most + 20])
                more = f" and {len(found) - most - 20} more" if len(found) > most + 20 else ""
                console.print(Text(f"  also {rows}{more}", style="dim"))


def _place(finding: Finding, with_file: bool) -> str:
    return f"{finding.file}:{finding.row}" if with_file else f"row {finding.row}"


def _length_bias(report: CheckReport, console: Console) -> None:
    bias = report.length_bias
    assert bias is not None
    low, high = bias.ci95
    line = (
        f"length bias: chosen is longer in {bias.share:.1%} of {bias.pairs} pairs of different length "
        f"(95 % interval {low:.1%} to {high:.1%}), by {bias.mean_difference:+.1f} {report.unit} on average"
    )
    console.print(Text(line, style="green" if low <= 0.5 <= high else "yellow"))


def _ratings(found: RatingAgreement, console: Console) -> None:
    low, high = found.ci95
    line = (
        f"ratings disagree with the preferences on {found.disagreement:.1%} of {found.pairs} pairs, ties included "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )
    console.print(Text(line + (f"; {found.unrated} pairs are not rated" if found.unrated else ""), style="yellow"))
    table = Table(title="better answer by the ratings (down) and by the preferences (across)", title_justify="left")
    table.add_column("")
    for verdict in found.table:
        table.add_column(verdict, justify="right")
    for verdict, row in found.table.items():
        table.add_row(verdict, *(Text(str(n), style="bold" if other == verdict else "") for other, n in row.items()))
    console.print(table)


def _shown(pieces: list[tuple[str, str]], console: Console) -> None:
    console.print()
    legend = Text("what the model sees: ")
    for part, style in _STYLES.items():
        legend.append(part, style=style).append(" ")
    console.print(legend)
    view = Text()
    for index, (text, part) in enumerate(pieces[:_MOST_TOKENS]):
        view.append(text, style=f"{_STYLES[part]} {_SHADES[index % 2]}".strip())
    if len(pieces) > _MOST_TOKENS:
        view.append(f" … {len(pieces) - _MOST_TOKENS} more tokens", style="dim")
    console.print(view)
    console.print()
