"""Large data is prepared once: on all cores, into a folder named after the content, which every start and rank maps.

Small data (below LARGE examples) stays in memory, as lists.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import transformers

from alignment.batching.stored import StoredUnits, as_batch
from alignment.batching.units import NothingLeft, TokenCounts, checked
from alignment.config import DataConfig, RunConfig
from alignment.data.examples import BATCH, Examples
from alignment.data.formats.registry import BY_NAME
from alignment.data.sources import resolve
from alignment.data.viewed import Read, Viewed, prompt_hash
from alignment.data.workers import over_pieces, pieces
from alignment.errors import UserError
from alignment.models.loading import cache_folder
from alignment.storage import made_once

LARGE = 10_000  # examples from which on they are kept on disk
LARGE_BYTES = 4_000_000  # of their files: with less there are hardly so many
PIECE = 250  # records that a process turns into token ids at a time
NOT_CONTENT = ("path", "eval_path", "workers", "cache", "streaming", "shuffle_buffer")  # settings that change no unit
CODE = ("data", "batching", "trainers/inputs.py", "trainers/preparation.py")  # what makes units of files


# -- where ----------------------------------------------------------------------------------------------------------


def place_of(train: Any, evaluation: Any, tokenizer: Any, config: RunConfig, view: Any) -> Path | None:
    """The folder that the prepared data has, or will have; None where it is not kept: small, or not from files.

    Its name is a digest of all that the units depend on: the sources' content, settings, tokenizer, view and code.
    """
    data = config.data
    if not view.by_example or data.cache is False or (data.format != "auto" and data.format not in BY_NAME):
        return None
    train = data.path if train is None else train
    evaluation = data.eval_path if evaluation is None else evaluation
    size = 0
    marks: list[Any] = []
    for source, split in ((train, data.split), (evaluation, data.eval_split)):
        if source is None:
            continue
        if not _is_named(source):
            return None
        weights = list(source.values()) if isinstance(source, Mapping) else None
        sources = [found for path in _paths(source) for found in resolve(path, split)]
        size += sum(found.size for found in sources) if not marks else 0
        if size < LARGE_BYTES:
            return None
        found_marks = [found.mark() for found in sources]
        if None in found_marks:
            return None
        marks.append([weights, [found.name for found in sources], found_marks])
    settings = {name: value for name, value in asdict(data).items() if name not in NOT_CONTENT}
    content = [marks, settings, config.seed, tokenizer_mark(tokenizer), _named(view.read), _named(view.units), _code()]
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
    folder = cache_folder() if data.cache is True else Path(data.cache).expanduser()
    return folder / "prepared" / digest


def _is_named(source: Any) -> bool:
    """Whether it is a path, some paths or a mixture of paths."""
    return isinstance(source, str | Mapping) or (
        isinstance(source, Sequence) and len(source) > 0 and all(isinstance(path, str) for path in source)
    )


def _paths(source: Any) -> list[str]:
    return [source] if isinstance(source, str) else [str(path) for path in source]


def tokenizer_mark(tokenizer: Any) -> list[Any]:
    """What turns text into token ids, as JSON."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    table = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    names = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    return [hashlib.blake2b(table.encode()).hexdigest(), tokenizer.chat_template, names, transformers.__version__]


def _named(function: Any) -> str:
    """A function with what was bound to it."""
    if isinstance(function, functools.partial):
        return f"{_named(function.func)} {function.args!r} {sorted(function.keywords.items())!r}"
    return f"{function.__module__}.{function.__qualname__}"


@functools.lru_cache
def _code() -> str:
    root = Path(__file__).parents[1]
    files = [file for name in CODE for file in (sorted((root / name).rglob("*.py")) or [root / name])]
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files)).hexdigest()


# -- how ------------------------------------------------------------------------------------------------------------


def once(folder: Path, write: Callable[[Path], bool]) -> bool:
    """`made_once`; a folder that cannot be written is a UserError that names the mend."""
    try:
        return made_once(folder, write)
    except OSError as error:
        raise UserError(
            f"cannot keep the prepared data in {folder.parent}: {error.strerror or error}; make room, or name another "
            "folder by data.cache=FOLDER (data.cache=false keeps it for this run alone, in the one for temporary files)"
        ) from error


def view_examples(examples: Examples, read: Read, workers: int | None) -> tuple[Viewed, dict[str, int]]:
    """The records of `examples`, and what the view left out, by a pass over them on all cores."""

    def look(part: range) -> tuple[np.ndarray, Counter[str]]:
        rows: list[tuple[int, int, int]] = []
        counts: Counter[str] = Counter()
        for number, example in zip(part, examples[part.start : part.stop], strict=True):
            records, left_out = read([example])
            counts.update(left_out)
            rows += [(number, place, prompt_hash(record)) for place, record in enumerate(records)]
        return np.array(rows, dtype=np.uint64).reshape(-1, 3), counts

    found, total = [], Counter[str]()
    for rows, counts in over_pieces(look, pieces(len(examples), 4 * BATCH), workers):
        found.append(rows)
        total += counts
    table = np.concatenate(found) if found else np.empty((0, 3), dtype=np.uint64)
    chosen = examples if len(table) == len(examples) and _in_turn(table[:, 0]) else examples.select(table[:, 0])
    return Viewed(chosen, table[:, 1].astype(np.int32), table[:, 2].copy(), read), dict(total)


def _in_turn(numbers: np.ndarray) -> bool:
    return bool((numbers == np.arange(len(numbers), dtype=np.uint64)).all())


def store_units(
    file: Path, records: Viewed, units: Callable[..., Any], tokenizer: Any, data: DataConfig
) -> TokenCounts:
    """Write the units of `records` to `file`, made on all cores.

    Raises:
        UserError: as `units` does; that none is left, of all.
    """

    def encode(part: range) -> tuple[pa.RecordBatch, TokenCounts]:
        try:
            found, counts = units(list(records[part.start : part.stop]), tokenizer, data)
        except NothingLeft as nothing:  # of this piece
            found, counts = [], nothing.counts
        return as_batch(found), counts

    totals: list[TokenCounts] = []

    def batches() -> Iterable[pa.RecordBatch]:
        for batch, counts in over_pieces(encode, pieces(len(records), PIECE), data.workers):
            if totals:
                totals[0].add(counts)
            else:
                totals.append(counts)
            yield batch

    stored = StoredUnits.write(file, batches())
    if not len(stored):
        checked([], len(records), data, totals[0])
    return totals[0]
