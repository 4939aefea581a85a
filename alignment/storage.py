"""What is kept on disk by the digest of what it was computed from, so that no process computes it twice.

`made_once` keeps a folder. A `ContentStore` keeps many small values in one SQLite file, which several runs, processes
and threads may share. It keeps SQLite's default journal: few reads and writes gain nothing from a write-ahead log,
which does not work on network file systems. What is wrong with a store never ends a run; it costs computing again.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

WAIT_SECONDS = 60.0  # for another process that writes
Found = TypeVar("Found")


def made_once(folder: Path, write: Callable[[Path], bool]) -> bool:
    """Whether `folder` is there, made by `write` (which gets an empty one, and may find nothing to keep) if need be.

    Of several processes one writes and the others wait. What a killed one left half-written is written again.
    """
    if folder.is_dir():
        return True
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return True
        writing = folder.with_name(f"{folder.name}.writing")
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        try:
            if write(writing):
                os.replace(writing, folder)
        finally:
            shutil.rmtree(writing, ignore_errors=True)
        return folder.is_dir()


class ContentStore:
    """JSON-able values by key (bytes, such as a digest) in `file`. Safe to use from several processes at once.

    Args:
        file: made at the first use, with its folder.
        what: what is kept, in the plural; begins what is printed when the store cannot be used.
    """

    def __init__(self, file: Path, what: str) -> None:
        self.file, self.what = file, what
        self.usable = True
        self.checked = False

    def get(self, keys: Sequence[bytes]) -> list[Any | None]:
        """The value of each key, or None where there is none."""

        def read(store: sqlite3.Connection) -> list[Any | None]:
            found = [store.execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone() for key in keys]
            return [None if row is None else _value(row[0]) for row in found]

        return self._with(read) or [None] * len(keys)

    def put(self, values: Mapping[bytes, Any]) -> None:
        """Add `values`, in one transaction; what was under a key is replaced. A None is left out."""
        rows = [(key, json.dumps(value)) for key, value in values.items() if value is not None]
        if rows:
            self._with(lambda store: store.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", rows))

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
                        "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
                    )
                    return action(store)
            except (OSError, sqlite3.DatabaseError) as error:
                damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
                if not (damaged and attempt == 0 and self._set_aside(error)):
                    self.usable = False
                    print(f"{self.what}: going on without the cache {self.file} ({error})")
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
        print(f"{self.what}: the cache was damaged ({error}) and is set aside as {aside}; starting a new one")
        return True


def _value(stored: Any) -> Any:
    """The value that was stored, or None where it cannot be read: it is then made again."""
    try:
        return json.loads(stored)
    except (ValueError, TypeError, RecursionError):
        return None


def _is_sound(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(file, timeout=WAIT_SECONDS)) as store:
            return store.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.DatabaseError:
        return False
