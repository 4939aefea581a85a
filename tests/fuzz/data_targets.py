"""What reads preference data: files, sources, formats, views, conversion."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from alignment.data import views
from alignment.data.checks import check as check_data
from alignment.data.convert import convert
from alignment.data.example import Example, content_id
from alignment.data.files import read_rows
from alignment.data.formats.common import RowError
from alignment.data.formats.registry import BY_NAME, parse_row
from alignment.data.judged_view import judged
from alignment.data.readers import load_examples
from alignment.data.sources import resolve
from tests.data.rows import CASES
from tests.data.test_files import CONTENT
from tests.fuzz.harness import Target
from tests.fuzz.hostile import dumped, leaves, mutated, mutated_bytes, packed, texts, values

ROWS = [row for _, row, *_ in CASES]
VIEWS = (views.pairs, views.demonstrations, views.unpaired, judged, views.improvements, views.prompts)
SHAPES = (
    [*ROWS[:6]],
    {"train": ROWS[:2], "test": ROWS[2:4]},
    {"a": ROWS[0], "b": ROWS[1]},
    {"chosen": ["x"], "rejected": ["y"]},
)


def _file(kind: str) -> Any:
    seeds = [CONTENT[kind], *([dumped(shape) for shape in SHAPES] if kind == "json" else [])]

    def check(content: bytes, folder: Path) -> int:
        name = f"data.{kind}.gz" if content.startswith(b"\x1f\x8b") else f"data.{kind}"
        Path(name).write_bytes(content)
        return sum(1 for _ in read_rows(Path(name)))

    return Target(f"reader: {kind}", "readers", mutated_bytes([*seeds, *map(packed, seeds)]), check)


def _packed_after(content: bytes, folder: Path) -> int:
    """Sound gzip around broken rows."""
    Path("data.jsonl.gz").write_bytes(packed(content))
    return sum(1 for _ in read_rows(Path("data.jsonl.gz")))


def _json_rows(value: Any, folder: Path) -> int:
    Path("data.json").write_bytes(dumped(value))
    return sum(1 for _ in read_rows(Path("data.json")))


NAMES = (
    *(
        "train.jsonl",
        "test.jsonl",
        "data",
        "data/train.jsonl",
        "a b.jsonl",
        "loop.jsonl",
        "x.gz",
        "train.csv",
        "[a].jsonl",
    ),
    *("dataset_info.json", "dataset_dict.json", "\udcff.jsonl", "train.jsonl.gz", "state.json", ".hidden.jsonl"),
)


@st.composite
def _trees(draw: st.DrawFn) -> tuple[list[tuple[str, str]], str]:
    """(entries of a folder: (name, file, folder, link to itself or link to above), the path that is asked for)."""
    names = st.sampled_from(NAMES)
    entries = draw(st.lists(st.tuples(names, st.sampled_from(["rows", "text", "folder", "loop", "up"])), max_size=5))
    path = draw(
        st.sampled_from(
            [
                "tree",
                "tree/*",
                "tree/**",
                "tree/**/*.jsonl",
                "tree/[",
                "tree/data",
                "tree\x00",
                "everyday",
                "everyday:x",
            ]
        )
        | texts.map(lambda text: f"tree/{text}")
        | st.text(alphabet="ab:*?[]!{}\x00\ud800", max_size=8)
    )
    return entries, path


def _folder(value: tuple[list[tuple[str, str]], str], folder: Path) -> int:
    entries, path = value
    os.mkdir("tree")
    for name, what in entries:
        place = f"tree/{name}"
        if os.path.lexists(place):
            continue
        parent = os.path.dirname(place)
        if os.path.lexists(parent) and not os.path.isdir(parent):
            continue
        os.makedirs(parent, exist_ok=True)
        if what == "folder":
            os.mkdir(place)
        elif what in ("loop", "up"):
            os.symlink(os.path.basename(place) if what == "loop" else "..", place)
        else:
            Path(place).write_bytes(dumped(ROWS[0]) if what == "rows" else b"text")
    return sum(1 for source in resolve(path, "train") for _ in source.rows)


def _row(row: Any, folder: Path) -> int:
    """A row through its format, the record and back, and every view."""
    if not isinstance(row, dict):
        return 0
    _, found = parse_row(row)
    for example in found:
        try:
            content_id(example)
        except UnicodeEncodeError as error:  # what the loader says of it
            raise RowError("half a surrogate pair") from error
        again = Example.from_dict(json.loads(json.dumps(example.to_dict(), default=str)))
        for view in VIEWS:
            view([again])
    return len(found)


def _one_format(value: tuple[str, Any], folder: Path) -> int:
    name, row = value
    return len(parse_row(row, [BY_NAME[name]])[1]) if isinstance(row, dict) else 0


def _loaded(rows: list[Any], folder: Path) -> int:
    """Rows through the whole of the loader: Arrow and back."""
    Path("data.jsonl").write_bytes(b"\n".join(map(dumped, rows)))
    return sum(len(example.responses) for example in load_examples("data.jsonl").examples)


def _checked(rows: list[Any], folder: Path) -> object:
    Path("data.jsonl").write_bytes(b"\n".join(map(dumped, rows)))
    for to, out in (("example", "out.jsonl"), ("trl", "trl.jsonl"), ("example", "out.parquet")):
        convert("data.jsonl", Path(out), to=to)
    return check_data("data.jsonl", eval_path="out.jsonl").wrong


some_rows = st.lists(mutated(ROWS), min_size=1, max_size=4)
TARGETS = (
    *(_file(kind) for kind in CONTENT),
    Target("reader: gzip", "readers", mutated_bytes([CONTENT["jsonl"]]), _packed_after),
    Target("reader: JSON shapes", "readers", mutated(SHAPES) | values, _json_rows),
    Target("folders, globs, links", "readers", _trees(), _folder),
    Target("formats: mutated rows", "formats", mutated(ROWS), _row),
    Target(
        "formats: any object",
        "formats",
        st.dictionaries(st.sampled_from(sorted({k for r in ROWS for k in r})), values),
        _row,
    ),
    Target("formats: one by name", "formats", st.tuples(st.sampled_from(sorted(BY_NAME)), mutated(ROWS)), _one_format),
    Target("loader", "formats", some_rows, _loaded),
    Target("check and convert", "formats", some_rows, _checked, slow=True),
    Target(
        "loader: any values",
        "formats",
        st.lists(st.dictionaries(texts, leaves, max_size=3), min_size=1, max_size=3),
        _loaded,
    ),
)
