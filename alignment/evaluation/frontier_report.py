"""What `align frontier` shows and writes: three tables, notes, a CSV file, and all of it as plain values."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignment.evaluation.agreement import Estimate
from alignment.evaluation.frontier import Comparison, Frontiers, Group, Setting
from alignment.evaluation.text import NOTHING, decimal, number, plus_minus, visible

COLUMNS = (
    "kind",
    "group",
    "setting",
    "seed",
    "run",
    "x",
    "x_se",
    "y",
    "y_se",
    "y_low",
    "y_high",
    "nondominated",
    "note",
)


def render(found: Frontiers, console: Console) -> None:
    """Print points, areas and differences of areas, and below them what has to be known to read them."""
    console.print(_points(found))
    drawn = [group for group in found.groups if group.line is not None]
    if drawn:
        console.print(_areas(found))
    if found.comparisons:
        console.print(_comparisons(found))
    for note in notes(found):
        console.print(Text(f"· {note}"))


def _table(*headings: str, left: int, title: str = "") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left", title_style="bold")
    for place, heading in enumerate(headings):
        is_text = place < left
        table.add_column(Text(heading), justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return table


def _points(found: Frontiers) -> Table:
    across, up = _names(found)
    table = _table("", "group", "setting", "seeds", across, up, left=3)
    for group in found.groups:
        for point in sorted(group.settings, key=lambda setting: (bool(setting.left_out), setting.x)):
            name, label = Text(visible(group.name)), Text(visible(point.label or NOTHING))
            if point.left_out:
                table.add_row("", name, label, str(len(point.runs)), Text(NOTHING), Text(visible(point.left_out)))
                continue
            mark = "●" if point.nondominated else ""
            values = plus_minus(point.x, point.x_se), plus_minus(point.y, point.y_se)
            table.add_row(mark, name, label, str(len(point.runs)), *values)
    return table


def _names(found: Frontiers) -> tuple[str, str]:
    sweep = found.sweep
    across = "KL (nats)" if sweep.x == "kl" else visible(sweep.x)
    return across, visible(f"{sweep.y}: {sweep.y_name}" if sweep.y_name else sweep.y)


def _areas(found: Frontiers) -> Table:
    width = found.limits[1] - found.limits[0] if found.limits else math.nan
    between = f"{found.limits[0]:.2f} to {found.limits[1]:.2f}" if found.limits else "no common KL"
    table = _table(
        "group", "points", "KL from … to", f"area, {between}", "mean height", left=1, title="Area under the frontier"
    )
    for group in found.groups:
        points, span = str(len(group.points)), f"{group.span[0]:.2f} … {group.span[1]:.2f}" if group.points else NOTHING
        if group.why_not:
            table.add_row(Text(visible(group.name)), points, span, Text(group.why_not), "")
            continue
        value, low, high, _ = group.area
        height = Estimate(value / width, low / width, high / width)
        table.add_row(Text(visible(group.name)), points, span, _estimate(group.area), _estimate(height))
    return table


def _comparisons(found: Frontiers) -> Table:
    many = len(found.comparisons) > 1
    sure = f"95 % for all {len(found.comparisons)} together" if many else "95 %"
    table = _table(
        "first minus second", "KL from … to", f"area [{sure}]", "mean height", left=1, title="Difference of areas"
    )
    for one in found.comparisons:
        pair = Text(visible(f"{one.first} − {one.second}"))
        if one.limits is None:
            table.add_row(pair, "no common KL", NOTHING, NOTHING)
            continue
        width = one.limits[1] - one.limits[0]
        style = "bold" if one.area.low > 0 or one.area.high < 0 else ""
        height = decimal(one.area.value / width, sign=True)
        limits = f"{one.limits[0]:.2f} … {one.limits[1]:.2f}"
        table.add_row(pair, limits, Text(_estimate(one.area, sign=True), style=style), height)
    return table


def _estimate(value: Estimate, sign: bool = False) -> str:
    text = decimal(value.value, sign=sign)
    if number(value.low) is None or number(value.high) is None:
        return text
    return f"{text} [{decimal(value.low, sign=sign)}, {decimal(value.high, sign=sign)}]"


def notes(found: Frontiers) -> list[str]:
    """What the tables do not say of themselves, a sentence or two each."""
    said = [_what(found)]
    if found.start is not None:
        said.append(f"Every frontier begins at the untrained model: KL 0, {found.sweep.y} {decimal(found.start)}.")
    if found.limits is None and sum(group.line is not None for group in found.groups) > 1:
        said.append(
            "No KL is reached by all groups: there is no common area, and pairs are compared where they overlap."
        )
    said += [f"{group.name}: {group.why_not}." for group in found.groups if group.why_not]
    without: dict[str, list[str]] = {}
    for group in found.groups:
        if group.line is not None and group.no_band and found.band != "none":
            without.setdefault(group.no_band, []).append(group.name)
    for reason, groups in without.items():
        wish = "; --band prompts shows the chance over prompts alone" if found.band == "seeds" else ""
        said.append(f"No band for {', '.join(groups)}: {reason}{wish}.")
    said += [note[0].upper() + note[1:] + "." for note in found.sweep.notes]
    return [visible(note) for note in said]


def _what(found: Frontiers) -> str:
    if found.through == "nondominated":
        line = (
            "● not dominated: no other point of its group has at most its KL and at least its reward. Lines join these"
        )
    else:
        line = "● not dominated. Lines join all points of a group"
    over = {
        "seeds": "seeds and prompts are resampled",
        "prompts": "prompts alone are resampled, so chance between runs is not in it",
        "none": "",
    }[found.band]
    has = any(not group.no_band for group in found.groups if group.line is not None)
    return line + (f". Intervals are 95 %: {over}." if over and has else ".")


def to_csv(found: Frontiers) -> str:
    """A row each run, setting and place of a frontier (its `kind`), with the columns of COLUMNS."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for group in found.groups:
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in _csv_rows(group))
    return text.getvalue()


def _csv_rows(group: Group) -> Iterator[dict[str, Any]]:
    for point in group.settings:
        for run in point.runs:
            yield {
                **{"kind": "run", "group": group.name, "setting": run.setting, "seed": run.seed, "run": run.name},
                **{"x": run.x.mean, "x_se": run.x.se, "y": run.y.mean, "y_se": run.y.se, "note": run.left_out},
            }
        values = {"x": point.x, "x_se": point.x_se, "y": point.y, "y_se": point.y_se, "note": point.left_out}
        shown = "" if point.left_out else point.nondominated
        yield {"kind": "setting", "group": group.name, "setting": point.label, **values, "nondominated": shown}
    for place, (x, y) in enumerate(zip(*group.grid, strict=True)):
        ends = {"y_low": group.low[place], "y_high": group.high[place]} if len(group.low) else {}
        yield {"kind": "frontier", "group": group.name, "x": float(x), "y": float(y), **ends}


def _cell(value: Any) -> Any:
    """Empty where a number is not known. Text that a spreadsheet would take for a formula is held as text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return "" if number(value) is None else round(float(value), 6)
    return f"'{value}" if str(value).startswith(("=", "+", "@", "-")) else visible(value)


def to_dict(found: Frontiers) -> dict[str, Any]:
    """Everything as plain JSON-ready values; what is not known is null."""
    sweep = found.sweep
    return {
        **{"x": sweep.x, "y": sweep.y, "y_name": sweep.y_name, "by": list(sweep.by), "through": found.through},
        **{"band": found.band, "start": found.start, "limits": found.limits and list(found.limits)},
        "groups": [_group(group) for group in found.groups],
        "comparisons": [_comparison(one, found.level) for one in found.comparisons],
        "notes": notes(found),
    }


def _group(group: Group) -> dict[str, Any]:
    knots = [] if group.line is None else [[float(x), float(y)] for x, y in zip(*group.line, strict=True)]
    band = [[float(low), float(high)] for low, high in zip(group.low, group.high, strict=True)]
    return {
        **{"name": group.name, "span": [number(end) for end in group.span], "area": _interval(group.area)},
        **{"why_not": group.why_not or None, "no_band": group.no_band or None, "line": knots},
        "grid": [[float(x), float(y)] for x, y in zip(*group.grid, strict=True)],
        "band": band,
        "settings": [_setting(point) for point in group.settings],
    }


def _setting(point: Setting) -> dict[str, Any]:
    values = {key: number(getattr(point, key)) for key in ("x", "x_se", "y", "y_se")}
    runs = [
        {
            **{"run": run.name, "seed": run.seed, "x": number(run.x.mean), "x_se": number(run.x.se)},
            **{"y": number(run.y.mean), "y_se": number(run.y.se), "left_out": run.left_out or None},
        }
        for run in point.runs
    ]
    left = {"nondominated": point.nondominated, "left_out": point.left_out or None}
    return {"setting": point.label, **values, **left, "runs": runs}


def _interval(value: Estimate) -> dict[str, Any]:
    return {"value": number(value.value), "low": number(value.low), "high": number(value.high)}


def _comparison(one: Comparison, level: float) -> dict[str, Any]:
    limits = one.limits and list(one.limits)
    return {"first": one.first, "second": one.second, "limits": limits, "level": level, **_interval(one.area)}
