"""Further tables of a run's report, from files that others leave in the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment.evaluation.text import NOTHING, shortened, visible

PATTERN = "*.section.json"
MOST = 1000  # rows of a table that are shown


def read_sections(folder: Path) -> list[dict[str, Any]]:
    """The sections in `folder`, by file name, ready to show.

    A file holds {"title": str, "text": str (optional), "columns": [str, …], "rows": [[cell, …], …]}; a cell is text, a
    number, true, false or null. One that does not is named in its place, so that the rest of the report is not lost.
    """
    return [_read(path) for path in sorted(folder.glob(PATTERN))]


def _read(path: Path) -> dict[str, Any]:
    name = visible(path.name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        title, columns, rows = (content[key] for key in ("title", "columns", "rows"))
        if not isinstance(columns, list) or not isinstance(rows, list) or not all(isinstance(r, list) for r in rows):
            raise ValueError("columns must be a list, and rows a list of lists")
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"every row must have {len(columns)} cells, as there are columns")
    except KeyError as error:
        return _broken(name, f"it has no {error.args[0]!r}")
    except (ValueError, TypeError, OSError, RecursionError) as error:
        return _broken(name, " ".join(str(error).split())[:200])
    text = visible(content.get("text") or "")
    if len(rows) > MOST:
        text = f"{text} The first {MOST:,} of {len(rows):,} rows; all are in {name}.".strip()
    numeric = [all(_is_number(row[i]) or row[i] is None for row in rows) for i in range(len(columns))]
    return {
        "title": visible(title),
        "text": text,
        "columns": [(visible(column), right) for column, right in zip(columns, numeric, strict=True)],
        "rows": [[(_cell(cell), right) for cell, right in zip(row, numeric, strict=True)] for row in rows[:MOST]],
    }


def _broken(name: str, reason: str) -> dict[str, Any]:
    return {"title": name, "text": f"This section cannot be shown: {visible(reason)}.", "columns": [], "rows": []}


def _is_number(cell: Any) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _cell(cell: Any) -> str:
    if cell is None or cell != cell:  # NaN is not itself
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, (int, float)):
        return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.4g}"
    return visible(shortened(str(cell), 5000))
