"""What a view makes of examples on disk, read when it is asked for: memory holds a few bytes a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from alignment.data.example import Example
from alignment.data.examples import Examples

Read = Callable[[Iterable[Any]], tuple[list[Any], dict[str, int]]]  # examples -> records, and what was left out
_EXAMPLES, _PLACES = "examples.arrow", "places.npz"


class Viewed(Sequence[Any]):
    """Records of a view whose records depend each on one example alone, such as `pairs`.

    Args:
        examples: the example of each record; one of several records stands there several times.
        places: (len(examples),) which of its example's records each one is.
        prompts: (len(examples),) uint64, `prompt_hash` of each.
        read: the view.
    """

    def __init__(self, examples: Examples, places: np.ndarray, prompts: np.ndarray, read: Read) -> None:
        self.examples, self.places, self.prompts, self.read = examples, places, prompts, read

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Viewed: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return self._record(self.examples[index], self.places[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self._record, self.examples, self.places)

    def _record(self, example: Example, place: Any) -> Any:
        return self.read([example])[0][place]

    def select(self, indices: Sequence[int]) -> Viewed:
        """The records at these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        examples = self.examples.select(indices if isinstance(indices, range) else chosen)
        return Viewed(examples, self.places[chosen], self.prompts[chosen], self.read)

    def save(self, folder: Path) -> None:
        """Write what `open` takes into a new `folder`."""
        folder.mkdir(parents=True)
        self.examples.save(folder / _EXAMPLES)
        np.savez(folder / _PLACES, places=self.places, prompts=self.prompts)

    @classmethod
    def open(cls, folder: Path, read: Read) -> Viewed:
        """The records that `save` wrote, their texts memory-mapped."""
        stored = np.load(folder / _PLACES)
        return cls(Examples.open(folder / _EXAMPLES), stored["places"], stored["prompts"], read)


def prompt_hash(record: Any) -> int:
    """8 bytes, as a number: the same for records with the same prompt."""
    content = json.dumps(record.prompt, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


class ById(Mapping[str, Any]):
    """Records by their id. The ids are read when the first one is looked up; `values` and `items` do without."""

    def __init__(self, records: Viewed) -> None:
        self.records = records
        self._found: dict[str, int] | None = None

    def __getitem__(self, name: str) -> Any:
        if self._found is None:
            self._found = {record.id: place for place, record in enumerate(self.records)}
        return self.records[self._found[name]]

    def __iter__(self) -> Iterator[str]:
        return (record.id for record in self.records)

    def __len__(self) -> int:
        return len(self.records)

    def values(self) -> Any:
        return self.records
