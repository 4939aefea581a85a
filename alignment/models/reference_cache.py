"""Reference log-probs kept on disk by content: they outlive a run, a new seed, beta or loss, and an edited data set.

A key is the digest of all that a value depends on: the reference's weights and architecture, the autocast precision,
the token ids of prompt and completion, and the tokens' weights where they are not all 1. The layout, the make-up of a
micro-batch, the attention kernel and the device are not in it: they move a float32 sum by about 1e-6 of its size.

The store is one SQLite file, which several runs may share. It keeps SQLite's default journal: one read at the start of
a run and a few writes gain nothing from a write-ahead log, which does not work on network file systems. What is wrong
with the cache never ends a run; it costs scoring again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from torch import Tensor

from alignment.models.loading import cache_folder
from alignment.models.logps import causal_lm
from alignment.models.reference import AdapterOff, Reference

FILE = "reference-logps.sqlite3"
VERSION = 1  # raised where what is stored changes its meaning
WAIT_SECONDS = 60.0  # for another process that writes
# Entries of a configuration that do not enter a forward pass: two folders of the same model share their values.
NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "architectures", "use_cache", "dtype", "torch_dtype")
Found = TypeVar("Found")


def open_cache(setting: bool | str) -> ReferenceCache | None:
    """The cache of `reference.cache`: true for the toolkit's cache folder, a folder, or false for none."""
    if setting is False:
        return None
    return ReferenceCache(cache_folder() if setting is True else Path(setting).expanduser())


def fingerprint(reference: Reference, autocast: str) -> bytes:
    """Digest of what turns token ids into the reference's log-probs: named weights, architecture, `autocast` precision.

    A base under switched-off adapters has the fingerprint of the plain model. Takes a second or two a gigabyte.
    """
    model = reference.policy if isinstance(reference, AdapterOff) else reference.model
    core = causal_lm(model)
    settings = {name: value for name, value in core.config.to_dict().items() if name not in NOT_ARCHITECTURE}
    architecture = [VERSION, type(core).__name__, settings, autocast]
    digest = hashlib.blake2b(json.dumps(architecture, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(_weights(reference)):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        raw: Any = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()
        digest.update(raw)
    return digest.digest()


def _weights(reference: Reference) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the reference, under the plain model's names and without what an adapter adds."""
    added: tuple[str, ...] = ()
    if isinstance(reference, AdapterOff):
        state = reference.policy.get_base_model().state_dict()
        added = (getattr(reference.policy.base_model, "prefix", "lora_"), "modules_to_save")
    else:
        state = reference.model.state_dict()
    for name, tensor in state.items():
        parts = name.split(".")
        if torch.is_tensor(tensor) and not any(part.startswith(added) for part in parts):
            yield ".".join(part for part in parts if part not in ("base_layer", "original_module")), tensor


def key(mark: bytes, prompt: Sequence[int], completion: Sequence[int], weights: Sequence[float] | None = None) -> bytes:
    """The key of one completion's sum under the reference of fingerprint `mark`.

    `weights`: one a token of the completion, as multiplied into the sum; None where all are 1.
    """
    if weights is not None and all(weight == 1 for weight in weights):
        weights = None
    content = repr((tuple(prompt), tuple(completion), weights and tuple(weights)))
    return hashlib.blake2b(mark + content.encode(), digest_size=16).digest()


class ReferenceCache:
    """Sums of log-probs in nats by key, in `folder`. Safe to use from several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.usable = True
        self.checked = False

    def get(self, keys: Sequence[bytes]) -> list[float | None]:
        """The value of each key, or None."""

        def read(store: sqlite3.Connection) -> list[float | None]:
            found = [store.execute("SELECT value FROM sums WHERE key = ?", (key,)).fetchone() for key in keys]
            return [row and row[0] for row in found]

        return self._with(read) or [None] * len(keys)

    def put(self, values: Mapping[bytes, float]) -> None:
        """Add `values`; those that are not finite are left out."""
        rows = [row for row in values.items() if math.isfinite(row[1])]
        self._with(lambda store: store.executemany("INSERT OR REPLACE INTO sums VALUES (?, ?)", rows))

    def _with(self, action: Callable[[sqlite3.Connection], Found]) -> Found | None:
        """`action` on the open store, in one transaction; None where the store cannot be used."""
        for attempt in range(2 if self.usable else 0):
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with closing(sqlite3.connect(self.file, timeout=WAIT_SECONDS)) as store, store:
                    if not self.checked:  # a file that was cut short may still be read, as rows of nothing
                        if store.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                            raise sqlite3.DatabaseError("its pages do not hold together")
                        self.checked = True
                    store.execute(
                        "CREATE TABLE IF NOT EXISTS sums (key BLOB PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID"
                    )
                    return action(store)
            except (OSError, sqlite3.DatabaseError) as error:
                damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
                if not (damaged and attempt == 0 and self._set_aside(error)):
                    self.usable = False
                    print(f"reference log-probs: going on without the cache {self.file} ({error})")
                    break
        return None

    def _set_aside(self, error: Exception) -> bool:
        """Move a damaged store out of the way; False where that is not possible."""
        aside = f"{self.file}.damaged"
        try:
            with FileLock(f"{self.file}.lock", timeout=WAIT_SECONDS):
                if _is_sound(self.file):  # another process was here first
                    return True
                for suffix in ("", "-journal"):  # a journal left behind would be played back into the new file
                    if os.path.exists(f"{self.file}{suffix}"):
                        os.replace(f"{self.file}{suffix}", f"{aside}{suffix}")
        except OSError:  # filelock's Timeout is one
            return False
        print(f"reference log-probs: the cache was damaged ({error}) and is set aside as {aside}; starting a new one")
        return True


def _is_sound(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file, timeout=WAIT_SECONDS)) as store:
            return store.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError:
        return False
