"""Contamination on a terminal, and as tables of a run's report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from alignment.data.contamination import Contamination, Flagged, PartOverlap

SECTION = "contamination.section.json"
EXAMPLES = "contamination_examples.section.json"
MOST_LISTED = 100  # examples in the report
CLIP = 70  # characters of an example that are shown
_HEADING, _COLUMN = 28, 24  # widths in characters


def columns(found: Contamination) -> list[str]:
    """The table's headings."""
    near = [f"near copies (≥ {found.near_threshold:g})"] if found.near_threshold is not None else []
    over = f"≥ {100 * found.threshold:g} % of {found.n}-grams"
    shares = ["mean share in prompts", "mean share in answers"]
    return [
        "set",
        "part",
        "examples",
        f"below {found.n} words",
        "exact copies",
        *near,
        f"any {found.n}-gram",
        over,
        "95 % interval",
        *shares,
    ]


def rows(found: Contamination) -> list[list[Any]]:
    """The table: a row each part of each set; counts are numbers, shares are text."""
    from alignment.evaluation.text import NOTHING, percent

    table = []
    for name, parts in found.sets.items():
        for one in parts:
            ends = one.over_ci95
            bounds = f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %" if ends is not None else NOTHING
            near = [one.near] if found.near_threshold is not None else []
            counts = [one.examples, one.short, one.exact, *near, one.any, one.over]
            table.append([_short(name), one.part, *counts, bounds, percent(one.in_prompts), percent(one.in_answers)])
    return table


def _short(name: str) -> str:
    """A path's end, or the name as it is."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.suffix or len(path.parts) > 2 else name


def what(found: Contamination) -> str:
    """What the numbers are, in a few sentences."""
    said = (
        f"Of each evaluation example's distinct {found.n}-grams of words (no case, no punctuation), the share that "
        f"occurs in the prompts or answers of {found.train_rows:,} training rows. A text below {found.n} words is "
        "found only where a whole training text has the same words. Exact copies: a training "
        "conversation is, or begins with, the same prompt; or the same prompt and answer."
    )
    if found.most_rows is not None:
        said += f" What more than {found.most_rows} training rows have is boilerplate and not counted."
    return said


def render(found: Contamination, console: Console, shown: int = 5) -> None:
    """Print the table, and of each set the `shown` examples with most in common, with their training rows."""
    from rich.text import Text

    from alignment.evaluation.text import visible

    console.print(Text(what(found)))
    cells = [[Text(visible("–" if cell is None else cell)) for cell in row] for row in rows(found)]
    at_once = max(1, (console.width - _HEADING) // _COLUMN)
    for start in range(0, len(cells), at_once):
        console.print(_table(columns(found), cells[start : start + at_once]))
    for name, parts in found.sets.items():
        for one in parts:
            _examples(name, one, console, shown)
    _embedded(found, console, shown)


def _table(headings: list[str], parts: list[list[Text]]) -> Table:
    """A column each part of a set, since a terminal is narrow; the first two headings stand above it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name, part, *_ in parts:
        table.add_column(Text.assemble(name, "\n", part), justify="right", overflow="fold")
    for place, heading in enumerate(headings[2:], start=2):
        table.add_row(heading, *(part[place] for part in parts))
    return table


def _examples(name: str, one: PartOverlap, console: Console, shown: int) -> None:
    from rich.text import Text

    from alignment.evaluation.text import visible

    if not one.flagged or not shown:
        return
    console.print(Text(visible(f"{_short(name)}, {one.part}: {len(one.flagged)} examples"), style="bold"))
    for flagged in one.flagged[:shown]:
        console.print(Text(visible(f"  {flagged.id}: {_said(flagged)}"), style="yellow"))
        console.print(Text(f"    {_clipped(flagged)}", style="dim"))
    if len(one.flagged) > shown:
        console.print(Text(f"  and {len(one.flagged) - shown} more (--json lists all)", style="dim"))


def _said(flagged: Flagged) -> str:
    """`exact copy of train.jsonl:3; 100 % of 12 n-grams, most in train.jsonl:3 (12)`."""
    parts = []
    if flagged.exact:
        parts.append(f"exact copy of {', '.join(flagged.exact)}")
    elif flagged.near is not None:
        parts.append(f"near copy of {flagged.near[0]} (cosine {flagged.near[1]:.2f})")
    where = "" if flagged.exact else ", ".join(f"{found.row} ({found.shared})" for found in flagged.rows)
    if flagged.ngrams:
        parts.append(
            f"{100 * flagged.share:.0f} % of {flagged.ngrams} n-gram{'s' * (flagged.ngrams > 1)}"
            + (f", most in {where}" if where else "")
        )
    return "; ".join(parts)


def _clipped(flagged: Flagged) -> str:
    from alignment.evaluation.text import shortened, visible

    return shortened(" ".join(visible(flagged.text).split()), CLIP)


def _embedded(found: Contamination, console: Console, shown: int) -> None:
    from rich.text import Text

    from alignment.evaluation.text import visible

    for name, one in found.embedded.items():
        head = f"{_short(name)}, prompts by embeddings of {one.model}: {one.over} of a cosine ≥ {one.threshold:g} to a "
        console.print(Text(visible(f"{head}training prompt; median {one.median:.2f}"), style="bold"))
        for example, row, cosine in one.nearest[:shown]:
            console.print(Text(visible(f"  {example}: {row} ({cosine:.2f})")))


def write_sections(found: Contamination, folder: Path) -> None:
    """Write the tables that the run's report shows, as *.section.json files."""
    from alignment.evaluation.files import write_atomically

    main = {
        "title": "Contamination: what of the evaluation is in the training data",
        "text": what(found),
        "columns": columns(found),
        "rows": rows(found),
    }
    write_atomically(folder / SECTION, json.dumps(main, ensure_ascii=False, indent=1) + "\n")
    flagged = [(_short(name), one) for name, parts in found.sets.items() for part in parts for one in part.flagged]
    if not flagged:
        (folder / EXAMPLES).unlink(missing_ok=True)
        return
    more = f" The first {MOST_LISTED} of {len(flagged):,}." if len(flagged) > MOST_LISTED else ""
    examples = {
        "title": "Contaminated evaluation examples",
        "text": f"Exact copies, and examples of which training data has {100 * found.threshold:g} % or more.{more}",
        "columns": ["set", "example", "part", "what is found where", "text"],
        "rows": [[name, one.id, one.part, _said(one), _clipped(one)] for name, one in flagged[:MOST_LISTED]],
    }
    write_atomically(folder / EXAMPLES, json.dumps(examples, ensure_ascii=False, indent=1) + "\n")
