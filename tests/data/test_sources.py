"""From names to files: folders, globs, built-in sets, the hub, and what is said where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from alignment.data import builtin
from alignment.data.readers import load_examples
from alignment.data.sources import resolve
from alignment.errors import UserError


def put(file: Path, prompt: str = "Why?") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"prompt": prompt, "chosen": "Yes.", "rejected": "No."}) + "\n")
    return file


def names(path: Any, split: str = "train") -> list[str]:
    return [Path(source.name).name for source in resolve(str(path), split)]


def test_folder_gives_the_files_of_its_split(tmp_path: Path) -> None:
    for name in ("train-00001.jsonl", "train-00000.jsonl", "test.jsonl", "raw_sample.csv", "README.md"):
        put(tmp_path / name)
    assert names(tmp_path) == ["train-00000.jsonl", "train-00001.jsonl"]
    assert names(tmp_path, "test") == ["test.jsonl"]
    with pytest.raises(UserError, match=r"no file of the split 'eval'; there are raw_sample.csv, test.jsonl"):
        names(tmp_path, "eval")


def test_folder_may_hold_its_files_under_data(tmp_path: Path) -> None:
    put(tmp_path / "data" / "train.jsonl")
    assert names(tmp_path) == ["train.jsonl"]


def test_folder_of_one_file_without_a_split(tmp_path: Path) -> None:
    put(tmp_path / "pairs.jsonl")
    assert names(tmp_path) == ["pairs.jsonl"]
    put(tmp_path / "more.jsonl")
    with pytest.raises(UserError, match="no file of the split 'train'"):
        names(tmp_path)


def test_only_file_of_another_split_is_not_taken(tmp_path: Path) -> None:
    put(tmp_path / "test.jsonl")
    with pytest.raises(UserError, match=r"no file of the split 'train'; there are test.jsonl"):
        names(tmp_path)


def test_copies_of_one_split_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "train.jsonl")
    put(tmp_path / "train.jsonl.gz")
    with pytest.raises(UserError, match=r"train.jsonl and train.jsonl.gz look like copies"):
        names(tmp_path)


def test_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data file in this folder"):
        names(tmp_path)


def test_glob(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x.jsonl")
    put(tmp_path / "b" / "y.jsonl")
    assert names(tmp_path / "**" / "*.jsonl") == ["x.jsonl", "y.jsonl"]
    with pytest.raises(UserError, match="no file matches"):
        names(tmp_path / "*.csv")


def test_file_of_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown kind of file; known are .jsonl"):
        names(put(tmp_path / "pairs.txt"))


def test_missing_path_names_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match=r"no such file or folder: .*trian.jsonl \(did you mean train.jsonl\?\)"):
        names(tmp_path / "trian.jsonl")
    with pytest.raises(UserError, match=r"in .*: train.jsonl"):
        names(tmp_path / "zzz" / "q.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"in the current folder: train.jsonl"):
        names("zzz.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        names(tmp_path / "empty" / "x.jsonl")


def test_built_in_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "ROOT", tmp_path / "sets")
    put(tmp_path / "sets" / "mine" / "train.jsonl", "built in")
    monkeypatch.chdir(tmp_path)
    assert load_examples("mine").examples[0].prompt[0]["content"] == "built in"
    with pytest.raises(UserError, match="no split 'test'; there are train"):
        resolve("mine", "test")
    with pytest.raises(UserError, match="did you mean mine"):
        resolve("mien", "train")
    put(tmp_path / "mine", "local")  # what is there goes before what is shipped
    with pytest.raises(UserError, match="unknown kind of file"):
        resolve("mine", "train")


def test_hub_is_asked_only_where_nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, configuration: str | None, split: str, streaming: bool) -> datasets.Dataset:
        assert not streaming
        asked.append((name, configuration, split))
        return datasets.Dataset.from_list([{"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    loaded = load_examples("someone/pairs:clean", split="test")
    assert asked == [("someone/pairs", "clean", "test")]
    assert loaded.examples[0].meta["source"] == "someone/pairs:clean"
    put(tmp_path / "someone" / "pairs.jsonl")
    for missing in ("someone/pairs", "someone/other.jsonl", "/abs/pairs", "./someone"):
        with pytest.raises(UserError):
            resolve(missing + "x", "train")
    assert len(asked) == 1


def test_hub_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "sometwo" / "pairs.jsonl")
    with pytest.raises(UserError) as caught:
        load_examples("someone/pairs")
    assert str(caught.value) == (
        "no such file or folder: someone/pairs (did you mean sometwo?), "
        "and it could not be had from the hub as a data set: ConnectionError: Couldn't reach the hub"
    )


def test_saved_data_set(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}])
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    assert len(load_examples(tmp_path / "one").examples) == len(load_examples(tmp_path / "splits").examples) == 1
    with pytest.raises(UserError, match="no split 'test'; there are train"):
        load_examples(tmp_path / "splits", split="test")
    (tmp_path / "one" / "state.json").unlink()
    with pytest.raises(UserError, match="not a sound saved data set"):
        load_examples(tmp_path / "one")
