"""From what a user names (file, folder, glob, built-in set, hub id) to files or a hub data set."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data import builtin
from alignment.data.files import SUFFIXES, RawRow, kind_of, read_rows, standard_input
from alignment.data.hub import load_from_hub
from alignment.errors import UserError, nearest


@dataclass
class Source:
    """Something with rows: its name for reports, the rows, and what tells whether they are the same as before."""

    name: str
    rows: Iterable[RawRow]
    size: int = 0  # bytes, roughly; 0 where it is not known
    content: Path | str | None = None  # a file, or a fingerprint

    def mark(self) -> str | None:
        """A digest of the content; None where it cannot be told without reading the rows."""
        if not isinstance(self.content, Path):
            return self.content
        digest = hashlib.blake2b(digest_size=16)
        with self.content.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()


def resolve(path: str, split: str, streaming: bool = False) -> list[Source]:
    """The sources behind one path: a local file or folder, a built-in set, a glob, or a hub id, tried in this order.

    The path - is the standard input. With `streaming`, what is on the hub is read from there and not copied first.

    Raises:
        UserError: nothing is there, with the nearest names.
    """
    if path == "-":
        return [Source("stdin", standard_input(split))]
    local = Path(path).expanduser()
    if any((local / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        return [_saved(local, split)]
    if local.is_dir():
        return [_source(file, split) for file in _files_of(local, split)]
    if local.exists():
        return [_source(local, split)]
    if path in builtin.names():
        file = builtin.path_of(path, split)
        if file is None:
            raise UserError(
                f"the built-in set '{path}' has no split '{split}'; there are {', '.join(builtin.splits(path))}"
            )
        return [_source(file, split)]
    if glob.has_magic(path):
        files = sorted(Path(name) for name in glob.glob(str(local), recursive=True) if Path(name).is_file())
        if not files:
            raise UserError(f"no file matches {path}")
        return [_source(file, split) for file in files]
    if _may_be_hub_id(path):
        return [_hub(path, split, streaming)]
    raise UserError(_missing(local))


def _source(file: Path, split: str) -> Source:
    if kind_of(file) is None:
        raise UserError(f"{file}: unknown kind of file; known are {', '.join(SUFFIXES)}, each also with .gz")
    return Source(str(file), read_rows(file, split), file.stat().st_size, file)


def _files_of(folder: Path, split: str) -> list[Path]:
    """`train.jsonl`, `train-00000-of-00002.parquet`, … of a folder or its data/; or its only file, if that names none.

    Raises:
        UserError: no data file, or none of this split.
    """
    files = sorted(file for place in (folder, folder / "data") if place.is_dir() for file in place.iterdir())
    files = [file for file in files if file.is_file() and kind_of(file) is not None and not file.name.startswith(".")]
    if not files:
        raise UserError(f"{folder}: no data file in this folder; known are {', '.join(SUFFIXES)}, each also with .gz")
    chosen = [file for file in files if _is_split(file, split)]
    if chosen:
        return _one_copy_each(chosen)
    if len(files) == 1 and not any(_is_split(files[0], name) for name in ("train", "test", "validation", "eval")):
        return files
    raise UserError(f"{folder}: no file of the split '{split}'; there are {', '.join(file.name for file in files[:8])}")


def _is_split(file: Path, split: str) -> bool:
    return file.name.startswith((f"{split}.", f"{split}-", f"{split}_"))


def _one_copy_each(files: list[Path]) -> list[Path]:
    """Refuse train.jsonl beside train.jsonl.gz or train.csv: read both, and every row would count twice."""
    stems: dict[str, Path] = {}
    for file in files:
        stem = file.name.removesuffix(".gz").rsplit(".", 1)[0]
        if stem in stems:
            raise UserError(f"{file.parent}: {stems[stem].name} and {file.name} look like copies; name the one to read")
        stems[stem] = file
    return files


def _may_be_hub_id(path: str) -> bool:
    parts = path.split(":")[0].split("/")
    named = all(part and part.replace("-", "").replace("_", "").replace(".", "").isalnum() for part in parts)
    return len(parts) == 2 and named and kind_of(Path(path)) is None and not Path(parts[0]).is_dir()


def _hub(path: str, split: str, streaming: bool) -> Source:
    """`owner/name` or `owner/name:configuration` from the hub, or from its local cache."""
    name, _, configuration = path.partition(":")
    try:
        found = load_from_hub(name, configuration or None, split, streaming)
    except Exception as error:  # many kinds, from the network, the hub and the scripts of old data sets
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{_missing(Path(path))}, and it could not be had from the hub as a data set: "
            f"{type(error).__name__}: {reason[0][:200] if reason else 'no reason given'}"
        ) from error
    return _data_set(path, found)


def _saved(folder: Path, split: str) -> Source:
    """A folder that `datasets.Dataset.save_to_disk` wrote."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # many kinds, by what is missing or broken
        raise UserError(f"{folder}: not a sound saved data set: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise UserError(f"{folder}: no split '{split}'; there are {', '.join(found)}")
        found = found[split]
    return _data_set(str(folder), found)


def _data_set(name: str, found: Any) -> Source:
    import datasets

    if isinstance(found, datasets.IterableDataset):
        return Source(name, _hub_rows(found))
    return Source(name, _hub_rows(found), found.data.nbytes, found._fingerprint)


def _hub_rows(found: Any) -> Iterator[RawRow]:
    yield from enumerate(found, 1)


def _missing(path: Path) -> str:
    """What is there in place of a path that is not: the nearest names of its deepest existing folder."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    wanted = path.relative_to(parent).parts[0] if path != parent else path.name
    there = [entry.name for entry in sorted(parent.iterdir())[:1000] if not entry.name.startswith(".")]
    if not path.is_absolute() and len(path.parts) == 1:
        there += builtin.names()
    where = "the current folder" if str(parent) == "." else str(parent)
    if not there:
        return f"no such file or folder: {path} ({where} is empty)"
    hint = nearest(wanted, there)
    hint = hint if hint.startswith("did") else f"in {where}: {', '.join(there[:8])}"
    return f"no such file or folder: {path} ({hint})"
