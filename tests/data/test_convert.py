"""Any format to the toolkit's record or TRL's pairs, whole or not at all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alignment.data.convert import convert
from alignment.data.example import Example
from alignment.data.readers import load_examples
from alignment.data.views import pairs
from alignment.errors import UserError
from tests.data.rows import CASES

GOOD = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """One file that holds a row of every layout."""
    file = tmp_path / "everything.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for _, row, *_ in CASES), encoding="utf-8")
    return file


def content(examples: Any) -> list[Example]:
    """The examples, with where they came from in place of where they are."""
    found = []
    for example in examples:
        origin = example.meta.pop("origin", None) or {"source": example.meta["source"], "row": example.meta["row"]}
        example.meta |= origin
        found.append(example)
    return found


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "deeper/out.parquet"])
def test_example_record_round_trip(name: str, everything: Path, tmp_path: Path) -> None:
    before = load_examples(everything)
    out = tmp_path / name
    report = convert(everything, out)
    assert (report.rows_read, report.kept) == (len(CASES), len(CASES))
    after = load_examples(out)
    assert after.report.formats == {"example": len(before.examples)}
    assert after.examples[0].meta["source"] == str(out)
    assert content(after.examples) == content(before.examples)
    again = tmp_path / "again.jsonl"
    convert(out, again, format="example")
    assert content(load_examples(again).examples) == content(before.examples)
    assert (
        sorted(file.name for file in out.parent.iterdir() if "partial" in file.name or file.name.startswith(".")) == []
    )


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_pairs_survive_as_trl_rows(name: str, everything: Path, tmp_path: Path) -> None:
    before, _ = pairs(load_examples(everything).examples)
    report = convert(everything, tmp_path / name, to="trl")
    assert report.left_out["tie"] == 3  # equal scores, Auto-J's label 2, and one of six comparisons
    loaded = load_examples(tmp_path / name)
    assert loaded.report.formats == {"conversational": len(before)}
    after, _ = pairs(loaded.examples)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in after] == [
        (pair.prompt, pair.chosen, pair.rejected) for pair in before
    ]


def test_margin_is_written_where_every_pair_has_one(tmp_path: Path) -> None:
    scored = {**GOOD, "score_chosen": 3.5, "score_rejected": 1.0}
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps(scored) + "\n")
    convert(file, out, to="trl")
    assert json.loads(out.read_text())["margin"] == 2.5
    assert pairs(load_examples(out).examples)[0][0].margin == 2.5
    file.write_text(json.dumps(scored) + "\n" + json.dumps(GOOD) + "\n")
    convert(file, out, to="trl")
    assert [set(json.loads(line)) for line in out.read_text().splitlines()] == [{"prompt", "chosen", "rejected"}] * 2


def test_a_file_may_be_converted_onto_itself_and_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    convert(file, tmp_path / "a.jsonl.gz")
    convert(file, tmp_path / "b.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    convert(file, file)
    assert load_examples(file).report.formats == {"example": 1}


def test_nothing_is_written_when_something_is_wrong(tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps({"prompt": "Why?", "completion": "So.", "label": True}) + "\n{\n")
    out.write_text("mine\n")
    with pytest.raises(UserError, match=r"no pair in it to convert \(1 × no preference\)"):
        convert(file, out, to="trl")
    with pytest.raises(UserError, match=r"in.jsonl:2: broken JSON"):
        convert(file, out, on_bad_row="stop")
    with pytest.raises(UserError, match="unknown target of a conversion 'tlr': did you mean trl"):
        convert(file, out, to="tlr")
    with pytest.raises(UserError, match=r"must end in .jsonl"):
        convert(file, tmp_path / "out.csv")
    assert out.read_text() == "mine\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text(json.dumps(GOOD) + "\n")
    out.write_text("mine\n")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignment.data.convert.os.replace", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        convert(file, out)
    assert out.read_text() == "mine\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_folder_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps(GOOD) + "\n")
    with pytest.raises(UserError, match="cannot write"):
        convert(file, file / "out.jsonl")
