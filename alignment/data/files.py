"""Rows out of one file, streamed: JSON Lines, JSON, CSV, TSV and parquet, each also gzipped.

A row that cannot be read is yielded as a RowError in its place, so that the reader can count it and go on.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from alignment.data.formats.common import RowError
from alignment.errors import UserError

RawRow = tuple[int, dict[str, Any] | RowError]  # (line of JSON Lines; row of anything else, a CSV's header being row 1)
Binary = IO[bytes] | gzip.GzipFile
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
MOST_LINE = 1 << 28  # bytes or characters: what is longer is no row, but memory that would run out
MOST_UNPACKED = 1 << 28  # bytes of a gzip file that is read as a whole, where it unpacks to more than …
MOST_TIMES = 200  # … so many times its size: text becomes 3 to 20 times larger, a bomb 1000 times
_BOM = b"\xef\xbb\xbf"
# Headerless tables that are found in public: the columns, and what the last one holds.
_HEADERLESS = (
    (("instruction", "input", "response1", "response2", "feedback"), {"(a)", "(b)", "equal"}),
    (("instruction", "input", "response", "rating"), {str(rating) for rating in range(1, 11)}),
)


def kind_of(path: Path) -> str | None:
    """The suffix that says how to read a file, `.gz` aside; None where it is no known one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def read_rows(path: Path, split: str = "train") -> Iterator[RawRow]:
    """The rows of one file, in order. `split` chooses among the parts of a JSON object that holds several.

    Raises:
        UserError: unknown suffix, empty or unreadable file, truncated gzip, broken JSON, CSV or parquet as a whole, a
            line or an unpacked whole that no data set has.
    """
    kind = kind_of(path)
    if kind is None:
        raise UserError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)}, each also with .gz")
    try:
        with path.open("rb") as plain:
            start = plain.read(2)
            plain.seek(0)
            if not start:
                raise UserError(f"{path}: the file is empty")
            if start == b"\x1f\x8b" or path.suffix.lower() == ".gz":
                with gzip.GzipFile(fileobj=plain) as unpacked:
                    yield from _READERS[kind](path, unpacked, split)
            else:
                yield from _READERS[kind](path, plain, split)
    except EOFError as error:
        raise UserError(f"{path}: the gzip file is truncated; copy it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: not a sound gzip file ({error}); copy it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def standard_input(split: str = "train") -> Iterator[RawRow]:
    """The rows of JSON Lines, or of JSON, on the standard input, which is read to its end.

    Raises:
        UserError: nothing comes, or broken JSON as a whole.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError("nothing comes from the standard input: pipe JSON Lines into the command, or name a file")
    yield from _json(Path("stdin"), io.BytesIO(sys.stdin.buffer.read()), split)


def _json_lines(path: Path, file: Binary, split: str) -> Iterator[RawRow]:
    """Lines end at b"\\n" alone: str.splitlines would also cut at U+2028 and its like, inside a string."""
    for number, line in enumerate(_lines(path, file), 1):
        line = line.removeprefix(_BOM) if number == 1 else line
        if line.strip():
            yield number, _object(line.rstrip(b"\r\n"))


def _lines(path: Path, file: Any) -> Iterator[Any]:
    """The lines of bytes or text. Raises UserError for one longer than MOST_LINE."""
    while line := file.readline(MOST_LINE):
        if len(line) == MOST_LINE and line[-1:] not in (b"\n", "\n"):
            raise UserError(f"{path}: a line of more than {MOST_LINE:,} characters is no row")
        yield line


def _whole(path: Path, file: Binary) -> bytes:
    """All that the file holds. Raises UserError for a gzip file that unpacks to far more than text would."""
    if not isinstance(file, gzip.GzipFile):
        return file.read()
    most = max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)
    data = file.read(most + 1)
    if len(data) > most:
        raise UserError(
            f"{path}: unpacks to more than {most:,} bytes, {MOST_TIMES} times its size: it looks like a bomb"
        )
    return data


def _object(line: bytes) -> dict[str, Any] | RowError:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8: byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line")
    except RecursionError:
        return RowError("JSON nested too deeply")
    except json.JSONDecodeError as error:
        return RowError(f"broken JSON: {error.msg.removesuffix(' starting at')} at column {error.colno}")
    except ValueError as error:  # a number of more digits than Python reads
        return RowError(f"broken JSON: {error}")
    return value if isinstance(value, dict) else RowError(f"{_json_kind(value)}, not a JSON object")


def _json(path: Path, file: Binary, split: str) -> Iterator[RawRow]:
    data = _whole(path, file).removeprefix(_BOM)
    if not data.strip():
        raise UserError(f"{path}: the file is empty")
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start + 1}") from error
    except (ValueError, RecursionError) as error:
        first = data.lstrip().split(b"\n", 1)[0]
        if isinstance(_object(first), dict):  # JSON Lines under the name of .json, as often seen
            yield from _json_lines(path, io.BytesIO(data), split)
            return
        raise UserError(f"{path}: broken JSON: {error or 'nested too deeply'}") from error
    yield from enumerate(_rows_of(path, value, split), 1)


def _rows_of(path: Path, value: Any, split: str) -> Iterator[dict[str, Any] | RowError]:
    """Rows of a whole JSON value: a list, splits, one named list, columns, an object by id, or a single row."""
    if isinstance(value, list):
        for item in value:
            yield item if isinstance(item, dict) else RowError(f"{_json_kind(item)}, not a JSON object")
        return
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: holds {_json_kind(value)}, not rows")
    parts = {key: part for key, part in value.items() if isinstance(part, list)}
    tables = all(isinstance(item, dict) for part in parts.values() for item in part)
    if len(parts) == len(value) and tables and (split in parts or len(parts) == 1):
        yield from parts[split] if split in parts else next(iter(parts.values()))
    elif len(parts) == len(value) and len({len(part) for part in parts.values()}) == 1:
        for cells in zip(*parts.values(), strict=True):
            yield dict(zip(parts, cells, strict=True))
    elif all(isinstance(item, dict) for item in value.values()) and not {"chosen", "rejected"} <= value.keys():
        for key, item in value.items():
            yield {"id": key, **item}
    else:
        yield value


def _csv(path: Path, file: Binary, split: str) -> Iterator[RawRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 kB is less than a long dialogue
    delimiter = "\t" if kind_of(path) == ".tsv" else ","
    # Undecodable bytes become lone surrogates, and so stay within their row.
    text = io.TextIOWrapper(cast(IO[bytes], file), encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(_lines(path, text), delimiter=delimiter, strict=True)
    header: tuple[str, ...] | None = None
    for number, cells in _csv_rows(reader):
        if isinstance(cells, RowError):
            yield number, cells
        elif header is None:
            header = _header(path, cells)
            if header != tuple(cells):
                yield number, _csv_row(header, cells)
        elif cells:
            yield number, _csv_row(header, cells)
    if header is None:
        raise UserError(f"{path}: the file is empty")


def _csv_rows(reader: Any) -> Iterator[tuple[int, list[str] | RowError]]:
    number = 0
    while True:
        number += 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, RowError(f"broken CSV: {error}")


def _header(path: Path, cells: list[str]) -> tuple[str, ...]:
    """The column names: the first row, or the known columns of a public table that has no header."""
    for names, last in _HEADERLESS:
        if len(cells) == len(names) and cells[-1].strip().lower() in last:
            return names
    if len(set(cells)) < len(cells) or any(not cell.strip() or len(cell) > 100 or "\n" in cell for cell in cells):
        raise UserError(f"{path}: the first row is not a header of distinct column names; add one")
    return tuple(cells)


def _csv_row(header: tuple[str, ...], cells: list[str]) -> dict[str, Any] | RowError:
    if len(cells) != len(header):
        return RowError(f"{len(cells)} cells under a header of {len(header)} columns")
    for cell in cells:
        bad = next((character for character in cell if "\udc80" <= character <= "\udcff"), None)
        if bad is not None:
            return RowError(f"not UTF-8: byte 0x{ord(bad) - 0xDC00:02x}")
    # An empty cell is how CSV writes "nothing here".
    return {name: cell if cell else None for name, cell in zip(header, cells, strict=True)}


def _parquet(path: Path, file: Binary, split: str) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        source = pyarrow.parquet.ParquetFile(
            io.BytesIO(_whole(path, file)) if isinstance(file, gzip.GzipFile) else path
        )
        number = 0
        for batch in source.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a sound parquet file: {str(error).splitlines()[0]}") from error


_READERS = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _json_kind(value: Any) -> str:
    return {dict: "an empty object", list: "a list", str: "a text", bool: "a boolean"}.get(
        type(value), "null" if value is None else "a number"
    )
