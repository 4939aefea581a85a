"""A sequence of examples that lives in an Arrow file: memory holds only the rows that are looked at."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter

from alignment.data.example import Example

BATCH = 1000  # rows read at a time
_TEXT, _NUMBER, _FLAG, _INDEX = (datasets.Value(kind) for kind in ("string", "float64", "bool", "int32"))
_MESSAGES = [{"role": _TEXT, "content": _TEXT}]
FEATURES = datasets.Features(
    {
        "prompt": _MESSAGES,
        "responses": [
            {
                "messages": _MESSAGES,
                "score": _NUMBER,
                "desirable": _FLAG,
                "judgments": [{"text": _TEXT, "satisfactory": _FLAG, "annotator": _TEXT}],
                "source": _TEXT,
            }
        ],
        "preferences": [{"first": _INDEX, "second": _INDEX, "p_first": _NUMBER, "margin": _NUMBER}],
        "meta": _TEXT,  # JSON, since every source has other fields
    }
)


class Examples(Sequence[Example]):
    """Examples over a `datasets.Dataset` with the columns of FEATURES; an index or iteration gives an `Example`."""

    def __init__(self, dataset: datasets.Dataset) -> None:
        self.dataset = dataset

    @classmethod
    def write(cls, examples: Iterable[Example]) -> Examples:
        """Stream examples into a temporary Arrow file, which is memory-mapped and goes with the last user of it."""
        folder = Path(tempfile.mkdtemp(prefix="alignment-examples-"))
        try:
            with ArrowWriter(features=FEATURES, path=str(folder / "examples.arrow")) as writer:
                empty = True
                for example in examples:
                    writer.write(_to_row(example))
                    empty = False
                writer.finalize()
            dataset = _no_rows() if empty else datasets.Dataset.from_file(str(folder / "examples.arrow"))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # Selections share the mapped table, so the folder goes when that table does, not when this object does.
        weakref.finalize(dataset.data, shutil.rmtree, folder, ignore_errors=True)
        return cls(dataset)

    def save(self, file: Path) -> None:
        """Write these examples, in their order, into an Arrow file that `open` takes."""
        with ArrowWriter(features=FEATURES, path=str(file)) as writer:
            for batch in self.dataset.with_format("arrow").iter(BATCH):
                writer.write_table(batch)
            writer.finalize()

    @classmethod
    def open(cls, file: Path) -> Examples:
        """The examples of a file that `save` wrote, memory-mapped."""
        return cls(datasets.Dataset.from_file(str(file)))

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return _from_row(self.dataset[index])

    def __iter__(self) -> Iterator[Example]:
        for batch in self.dataset.with_format("arrow").iter(BATCH):  # one by one takes longer
            yield from map(_from_row, batch.to_pylist())

    def select(self, indices: Iterable[int]) -> Examples:
        """The examples at these indices, in this order."""
        return Examples(self.dataset.select(indices if isinstance(indices, range | np.ndarray) else list(indices)))

    def shuffle(self, seed: int) -> Examples:
        """The same examples in a seeded order."""
        return Examples(self.dataset.shuffle(seed=seed, keep_in_memory=True))

    def filter(self, keep: Callable[[Example], bool]) -> Examples:
        """The examples for which `keep` holds, in order."""
        return self.select(index for index, example in enumerate(self) if keep(example))

    def __repr__(self) -> str:
        return f"Examples({len(self)})"


def _to_row(example: Example) -> dict[str, Any]:
    return {**example.to_dict(), "meta": json.dumps(example.meta, default=str)}


def _from_row(row: dict[str, Any]) -> Example:
    return Example.from_dict({**row, "meta": json.loads(row["meta"])})


def _no_rows() -> datasets.Dataset:
    return datasets.Dataset.from_dict({name: [] for name in FEATURES}, features=FEATURES)
