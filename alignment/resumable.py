"""Work that takes hours and ends in one JSONL file: it grows batch by batch, and goes on where it was stopped.

Beside OUT.jsonl lies OUT.jsonl.json: with what settings it is made, and how much of it is whole. A kill loses the batch
in work and no more: what is behind the last whole batch is cut off when the work goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from alignment.errors import UserError
from alignment.evaluation.files import write_atomically

SHOWN = 6  # differences named one by one
STDOUT = "-"
T = TypeVar("T")


class ResumableFile:
    """A JSONL file of rows, written in batches.

    Args:
        path: ends in .jsonl. Folders are made.
        settings: all that the rows depend on, JSON-ready.
        overwrite: begin anew whatever is there.
        sources: files that are read: none of them may be the one to write.

    Raises:
        UserError: it cannot be written, another process writes it, it is not this command's, or it was made with other
            settings.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False, sources: Iterable[str] = ()
    ) -> None:
        self.path, self.record = path, path.with_name(path.name + ".json")
        if path.suffix != ".jsonl":
            raise UserError(f"{path}: the file to write must end in .jsonl")
        if any(path.exists() and Path(source).exists() and path.samefile(source) for source in sources):
            raise UserError(f"{path} is what is read: give another file to write")
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.batches = self._bytes = 0
        self.totals: Counter[str] = Counter()  # sums over all batches, whenever they were made
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
            self._lock.acquire()
        except Timeout as error:
            raise UserError(f"{path}: another process is writing it") from error
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            if not overwrite:
                self._go_on()
            self._file = path.open("r+b" if path.exists() else "x+b")
            self._file.truncate(self._bytes)
            self._file.seek(self._bytes)
            self._write_record()
        except OSError as error:
            self._release()
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        except UserError:
            self._release()
            raise

    def _go_on(self) -> None:
        """Take up what is there, if it is this work's."""
        if not self.record.exists():
            if self.path.exists() and self.path.stat().st_size:
                raise UserError(f"{self.path} is no output of this command: give another name, or --overwrite")
            return
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
            settings, done = found["settings"], found["done"]
            batches, size, totals = int(done["batches"]), int(done["bytes"]), Counter(done["totals"])
            if not isinstance(settings, dict) or min(batches, size) < 0 or not all(map(_is_number, totals.values())):
                raise ValueError("something else stands in it")
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(f"{self.record} cannot be read: remove it, or --overwrite") from error
        different = [
            f"{key} {_shown(settings.get(key))}, now {_shown(self.settings.get(key))}"
            for key in dict.fromkeys([*settings, *self.settings])
            if settings.get(key) != self.settings.get(key)
        ]
        if different:
            shown = "; ".join(different[:SHOWN] + ([f"and {len(different) - SHOWN} more"] if different[SHOWN:] else []))
            raise UserError(f"{self.path} was made with other settings: {shown}\nMend: another name, or --overwrite")
        if not self.path.exists():
            return
        if self.path.stat().st_size < size:
            raise UserError(f"{self.path} is shorter than it was left: another name, or --overwrite")
        self.batches, self._bytes, self.totals = batches, size, totals

    def add(self, rows: Iterable[Mapping[str, Any]], totals: Mapping[str, float]) -> None:
        """Write one batch, and add `totals` to the sums."""
        data = _lines(rows)
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        self.batches += 1
        self._bytes += len(data)
        self.count(totals)
        self._write_record()

    def count(self, totals: Mapping[str, float]) -> None:
        """Add `totals` to the sums."""
        for name, value in totals.items():
            self.totals[name] += value  # type: ignore[assignment]

    def close(self) -> None:
        """Let others write it."""
        self._file.close()
        self._release()

    def _write_record(self) -> None:
        done = {"batches": self.batches, "bytes": self._bytes, "totals": dict(self.totals)}
        content = json.dumps({"settings": self.settings, "done": done}, indent=1, ensure_ascii=False)
        write_atomically(self.record, content + "\n")

    def _release(self) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def totals_of(path: Path) -> Counter[str]:
    """The sums over all batches of a `ResumableFile` at `path`."""
    record = path.with_name(path.name + ".json")
    return Counter(json.loads(record.read_text(encoding="utf-8"))["done"]["totals"])


class OneProcess:
    """Work in batches as a command does it, alone. `alignment.launch.together` has it for several processes.

    `rank` of `size` processes; batches may be made in any order and by any of them, and are written in theirs.
    """

    rank, size = 0, 1

    def file(self, path: Path, settings: Mapping[str, Any], **options: Any) -> ResumableFile:
        """The file to write, with `options` as of ResumableFile."""
        return ResumableFile(path, settings, **options)

    def on_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first process, on every one."""
        return make()

    def gathered(self, mine: list[T]) -> list[T]:
        """What all processes have found, in the order of their ranks."""
        return mine

    def stoppable(self, hint: Callable[[], str]) -> AbstractContextManager[None]:
        """How signals end the work inside."""
        return stoppable(hint)

    def progress(self, what: str, done: int, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """How far the work is, for a person."""
        return progress(what, done, total)

    def after_batch(self) -> None:
        """Called when a batch is written; may end the work."""


class StandardOutput:
    """The rows on the standard output, as they are made: what `ResumableFile` is, but for going on."""

    def __init__(self) -> None:
        self.batches = 0
        self.totals: Counter[str] = Counter()

    def add(self, rows: Iterable[Mapping[str, Any]], totals: Mapping[str, float]) -> None:
        """Write one batch, and add `totals` to the sums."""
        try:
            sys.stdout.buffer.write(_lines(rows))
            sys.stdout.buffer.flush()
        except OSError as error:
            raise UserError(f"cannot write to the standard output: {error.strerror or error}") from error
        self.batches += 1
        for name, value in totals.items():
            self.totals[name] += value  # type: ignore[assignment]

    def close(self) -> None:
        """Nothing is held."""


def open_output(
    path: Path, settings: Mapping[str, Any], *, overwrite: bool = False, sources: Iterable[str] = ()
) -> ResumableFile | StandardOutput:
    """A `ResumableFile`, or for the path - the standard output."""
    if str(path) == STDOUT:
        return StandardOutput()
    return ResumableFile(path, settings, overwrite=overwrite, sources=sources)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows)


@contextmanager
def stoppable(hint: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work inside at once: `hint()` is printed, and the exit code is 130 or 143."""
    terminated = False

    def on_signal(number: int, frame: Any) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt  # no library's `except Exception` swallows it

    main = threading.current_thread() is threading.main_thread()  # Python wants signals there
    before = signal.signal(signal.SIGTERM, on_signal) if main else None
    try:
        yield
    except KeyboardInterrupt:
        print(hint(), file=sys.stderr, flush=True)
        raise SystemExit(143 if terminated else 130) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def progress(what: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, or a line for every tenth where that is no terminal; yields `advance(how many more)`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=done)

        def advance(more: int) -> None:
            nonlocal done
            before, done = done, done + more
            bar.advance(task, more)
            if not console.is_terminal and 10 * done // total > 10 * before // total:
                print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)

        yield advance


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
