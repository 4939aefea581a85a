"""Values that take time to compute, kept by content: rows in a file that is made once, or gone on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alignment.evaluation.files import json_lines
from alignment.resumable import OneProcess

T = TypeVar("T")
ROWS_AT_ONCE = 64  # made and written together


def kept_values(
    path: Path,
    settings: Mapping[str, Any],
    what: str,
    field: str,
    rows: Sequence[T],
    make: Callable[[Sequence[T]], list[Any]],
    processes: OneProcess | None = None,
) -> list[Any]:
    """The value of each row, out of the file `path`.

    Args:
        path: ends in .jsonl, and is named by all that the values depend on.
        settings: the same in words, as `ResumableFile` takes them.
        what: what is done, for a person who waits.
        field: what a value is called in the file.
        make: the values of some rows, JSON-ready.
        processes: those of the launch, which make a part each; None: this one alone.
    """
    processes = processes or OneProcess()
    file = processes.file(path, settings)
    pieces = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    try:
        with processes.progress(what, file.totals["rows"], len(rows)) as advance:
            for first in range(file.batches, len(pieces), processes.size):
                mine = first + processes.rank
                made = [make(pieces[mine])] if mine < len(pieces) else []
                for values in processes.gathered(made):
                    file.add([{field: value} for value in values], Counter(rows=len(values)))
                    advance(len(values))
                processes.after_batch()
    finally:
        file.close()
    return [row[field] for row in json_lines(path)]
