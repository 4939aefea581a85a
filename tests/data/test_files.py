"""Every kind of file, gzipped and not, whole and broken."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from alignment.data import files
from alignment.data.files import read_rows
from alignment.data.formats.common import RowError
from alignment.errors import UserError

ROWS = [
    {"prompt": "Why?", "chosen": 'Line one.\nLine two, \u2028 and \x85 "quoted".', "rejected": "No."},
    {"prompt": "Wie? €", "chosen": "Ja\u2029.", "rejected": "Nein, 'nie'."},
]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


CONTENT = {
    "jsonl": lines(ROWS),
    "ndjson": lines(ROWS),
    "json": json.dumps(ROWS).encode(),
    "csv": table(ROWS),
    "tsv": table(ROWS, "\t"),
    "parquet": parquet(ROWS),
}


def read(path: Path, split: str = "train") -> list[Any]:
    return [value for _, value in read_rows(path, split)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", CONTENT)
def test_every_kind_gives_the_same_rows(kind: str, packed: bool, tmp_path: Path) -> None:
    file = tmp_path / f"data.{kind}{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(CONTENT[kind]) if packed else CONTENT[kind])
    assert read(file) == ROWS


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_byte_order_mark(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"data.{kind}"
    file.write_bytes(b"\xef\xbb\xbf" + CONTENT[kind])
    assert read(file) == ROWS


def test_gzip_is_seen_without_its_suffix(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(gzip.compress(CONTENT["jsonl"]))
    assert read(file) == ROWS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"prompt": ["a", "b"], "n": [1, 2]}, [{"prompt": "a", "n": 1}, {"prompt": "b", "n": 2}]),  # columns
        ({"x1": {"prompt": "a"}, "x2": {"id": "own"}}, [{"id": "x1", "prompt": "a"}, {"id": "own"}]),  # by id
        ({"train": [{"prompt": "a"}], "test": [{"prompt": "b"}]}, [{"prompt": "a"}]),  # splits
        ({"data": [{"prompt": "a"}, {"prompt": "b"}]}, [{"prompt": "a"}, {"prompt": "b"}]),
        ({"prompt": "a", "chosen": "b"}, [{"prompt": "a", "chosen": "b"}]),  # one row
    ],
)
def test_layouts_of_a_json_file(value: Any, expected: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps(value, indent=1))
    assert read(file) == expected


def test_json_lines_under_the_name_of_json(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_bytes(CONTENT["jsonl"])
    assert read(file) == ROWS


def test_bad_lines_keep_their_number_and_the_rest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    parts = [b'{"n": 1}', b"", b'{"n": ', b'"text"', b'{"n": "\xff"}', b"[" * 100_000, b'{"n": 7}\r', b"null", b"[1]"]
    file.write_bytes(b"\n".join(parts))
    found = dict(read_rows(file))
    assert (found[1], found[7]) == ({"n": 1}, {"n": 7})
    assert {number: str(value) for number, value in found.items() if isinstance(value, RowError)} == {
        3: "broken JSON: Expecting value at column 7",
        4: "a text, not a JSON object",
        5: "not UTF-8: byte 0xff at byte 8 of the line",
        6: "JSON nested too deeply",
        8: "null, not a JSON object",
        9: "a list, not a JSON object",
    }


def test_csv_rows_of_another_width_and_other_encodings_are_bad_rows(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(b'prompt,chosen\na,b\nonly one\n\xe9t\xe9,x\n\n"two\nlines",\n')
    found = {number: value if isinstance(value, dict) else str(value) for number, value in read_rows(file)}
    assert found == {
        2: {"prompt": "a", "chosen": "b"},
        3: "1 cells under a header of 2 columns",
        4: "not UTF-8: byte 0xe9",
        6: {"prompt": "two\nlines", "chosen": None},
    }


def test_csv_without_a_header(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("Write,nan,One,Two,(b)\nWrite,x,One,Two,equal\n")
    assert dict(read_rows(file))[1] == {
        "instruction": "Write",
        "input": "nan",
        "response1": "One",
        "response2": "Two",
        "feedback": "(b)",
    }
    assert len(read(file)) == 2
    file.write_text("Why?,Yes.,Yes.\nHow?,So.,Not so.\n")
    with pytest.raises(UserError, match="not a header of distinct column names"):
        read(file)


def test_a_long_cell_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes(table([{"prompt": "x" * 300_000, "n": "1"}]))
    assert len(read(file)[0]["prompt"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "the file is empty"),
        ("a.json", b" \n", "the file is empty"),
        ("a.csv", b"\xef\xbb\xbf", "the file is empty"),
        ("a.jsonl.gz", b"", "the file is empty"),
        ("a.json", b'{"a": 1', "broken JSON"),
        ("a.json", b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8"),
        ("a.json", b"3", "holds a number, not rows"),
        ("a.json", b"{}", "holds an empty object, not rows"),
        ("a.parquet", b"PAR1 not really", "not a sound parquet file"),
        ("a.jsonl.gz", b"plain text", "not a sound gzip file"),
        ("a.jsonl.gz", gzip.compress(CONTENT["jsonl"] * 50)[:-20], "gzip file is truncated"),
        ("a.csv.gz", gzip.compress(CONTENT["csv"] * 50)[:-20], "gzip file is truncated"),
        ("a.json.gz", gzip.compress(CONTENT["json"])[:-4], "gzip file is truncated"),
        ("a.parquet.gz", gzip.compress(CONTENT["parquet"])[:-4], "gzip file is truncated"),
        ("a.txt", b"x", "unknown kind of file"),
    ],
)
def test_broken_file_is_named_with_what_is_wrong(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_damaged_gzip_in_the_middle(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(CONTENT["jsonl"] * 50))
    packed[40:60] = b"\xff" * 20
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(packed)
    with pytest.raises(UserError, match=r"not a sound gzip file|truncated"):
        read(file)


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_without_an_end_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LINE", 1000)
    file = tmp_path / f"bomb.{kind}.gz"
    file.write_bytes(gzip.compress(b"x" * 5000))
    with pytest.raises(UserError, match="a line of more than 1,000 characters"):
        read(file)
    sound = {"jsonl": b'{"a": "' + b"x" * 990 + b'"}\n', "csv": b"a\n" + b"x" * 999 + b"\n"}[kind]
    file.write_bytes(gzip.compress(sound))
    assert read(file)  # 1000 with its end


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_a_bomb_is_not_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_UNPACKED", 1000)
    file = tmp_path / f"bomb.{kind}.gz"
    file.write_bytes(gzip.compress(b" " * 200_000))
    assert file.stat().st_size * files.MOST_TIMES < 200_000
    with pytest.raises(UserError, match="looks like a bomb"):
        read(file)
