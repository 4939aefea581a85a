"""Any known format -> one file: the toolkit's own record, or TRL's pairs."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alignment.data.examples import Examples
from alignment.data.readers import LoadReport, load_examples
from alignment.data.views import Pair, pairs
from alignment.errors import UserError, unknown

TARGETS = ("example", "trl")
_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def convert(
    path: Any,
    out: str | Path,
    *,
    to: str = "example",
    format: str = "auto",
    split: str = "train",
    on_bad_row: str = "skip",
) -> LoadReport:
    """Read `path` and write it to `out`, whole or not at all.

    Args:
        path, format, split, on_bad_row: as for `load_examples`.
        out: a file that ends in .jsonl, .jsonl.gz or .parquet; one that is there is replaced.
        to: "example" keeps everything; "trl" keeps the pairs: prompt, chosen and rejected as messages, and the margin
            where every pair has one. How sure a pair is (p_chosen) has no field there; ties and single answers are
            left out and counted.

    Raises:
        UserError: nothing usable, unknown target or suffix, or `out` cannot be written.
    """
    if to not in TARGETS:
        raise unknown("target of a conversion", to, TARGETS)
    target = Path(out)
    if not target.name.endswith(_SUFFIXES):
        raise UserError(f"{out}: the file to write must end in {', '.join(_SUFFIXES)}")
    loaded = load_examples(path, format=format, split=split, on_bad_row=on_bad_row)
    found: list[Pair] = []
    if to == "trl":
        found, loaded.report.left_out = pairs(loaded.examples)
        if not found:
            reasons = ", ".join(f"{count} × {why}" for why, count in loaded.report.left_out.items())
            raise UserError(f"{path}: there is no pair in it to convert ({reasons})")
    partial = target.with_name(f".{os.getpid()}.{target.name}")  # ends alike, since pandas and others go by the suffix
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".parquet":
            _write_parquet(partial, loaded.examples, found, to)
        else:
            _write_lines(partial, _example_rows(loaded.examples) if to == "example" else _trl_rows(found))
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # it was never made, or its folder was not
            partial.unlink()
    return loaded.report


def _example_rows(examples: Examples) -> Iterator[dict[str, Any]]:
    return (example.to_dict() for example in examples)


def _trl_rows(found: list[Pair]) -> Iterator[dict[str, Any]]:
    """Rows with a margin only where every pair has one: TRL reads the column as numbers."""
    with_margin = all(pair.margin is not None for pair in found)
    for pair in found:
        row = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
        yield {**row, "margin": pair.margin} if with_margin else row


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("wb") as plain:
        if path.suffix == ".gz":
            with gzip.GzipFile("", "wb", fileobj=plain, mtime=0) as packed:  # no name and time: equal runs, equal files
                packed.writelines(_lines(rows))
        else:
            plain.writelines(_lines(rows))


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    return (json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n" for row in rows)


def _write_parquet(path: Path, examples: Examples, found: list[Pair], to: str) -> None:
    import pyarrow
    import pyarrow.parquet

    if to == "example":
        examples.dataset.to_parquet(str(path))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(_trl_rows(found))), path)
