"""Units in an Arrow file: memory holds their lengths, and the token ids of those that are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from alignment.batching.groups import DIGEST_BYTES, Group, Unit

_GROUPS = pa.list_(pa.struct([("prompt", pa.list_(pa.int32())), ("completions", pa.list_(pa.list_(pa.int32())))]))
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("groups", _GROUPS),
        ("values", pa.map_(pa.string(), pa.float64())),
        ("aside", _GROUPS),
        ("shared", pa.int32()),  # tokens in each layout
        ("padded", pa.int32()),
        ("digest", pa.binary(DIGEST_BYTES)),
    ]
)


class StoredUnits(Sequence[Unit]):
    """The units of a file that `write` made, memory-mapped; an index gives a `Unit`.

    Args:
        file: an Arrow file of SCHEMA.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._reader = pa.ipc.open_file(pa.memory_map(str(file)))
        self._batches = [self._reader.get_batch(number) for number in range(self._reader.num_record_batches)]
        self._ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)
        self._lengths: dict[str, np.ndarray] = {}

    @staticmethod
    def write(file: Path, batches: Iterable[pa.RecordBatch]) -> StoredUnits:
        """Write the batches of `as_batch` to `file`, in their order."""
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch)
        return StoredUnits(file)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Unit]: ...
    def __getitem__(self, index: int | slice) -> Unit | list[Unit]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # negative ones, and IndexError
        batch = int(np.searchsorted(self._ends, index, side="right"))
        row = index - (int(self._ends[batch - 1]) if batch else 0)
        return _unit(self._batches[batch].slice(row, 1).to_pylist()[0])

    def lengths(self, layout: str) -> np.ndarray:
        """(len(self),) int32: `Unit.tokens` of each."""
        if layout not in self._lengths:
            columns = [batch.column(layout).to_numpy() for batch in self._batches]
            self._lengths[layout] = np.concatenate(columns) if columns else np.empty(0, np.int32)
        return self._lengths[layout]

    def digests(self) -> list[str]:
        """`Unit.digest` of each, in hex."""
        return [value.hex() for batch in self._batches for value in batch.column("digest").to_pylist()]


def as_batch(units: Sequence[Unit]) -> pa.RecordBatch:
    """Units as rows of SCHEMA."""
    rows = [
        {
            "id": unit.id,
            "groups": _groups(unit.groups),
            "values": list(unit.values.items()),
            "aside": _groups(unit.aside),
            "shared": unit.tokens("shared"),
            "padded": unit.tokens("padded"),
            "digest": unit.digest(),
        }
        for unit in units
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def _groups(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{"prompt": group.prompt, "completions": group.completions} for group in groups]


def _unit(row: dict[str, Any]) -> Unit:
    groups, aside = (
        tuple(Group(tuple(group["prompt"]), tuple(map(tuple, group["completions"]))) for group in row[name])
        for name in ("groups", "aside")
    )
    return Unit(row["id"], groups, dict(row["values"]), aside)


def lengths_of(units: Sequence[Unit], layout: str) -> Any:
    """`Unit.tokens` of each, a list; an array where they are stored, and read from there."""
    return units.lengths(layout) if isinstance(units, StoredUnits) else [unit.tokens(layout) for unit in units]


def digests(units: Sequence[Unit]) -> list[str]:
    """`Unit.digest` of each, in hex: read from the file where they are stored; none of a stream."""
    stored = getattr(units, "digests", None)
    return stored() if stored else [unit.digest().hex() for unit in units]
