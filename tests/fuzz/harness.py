"""One input, held against what is promised: a result or the toolkit's own error, in time, and nothing else done.

What code does is watched by an audit hook (Python tells it of files, processes, sockets and unpickling). Extensions in
C that open files by themselves are not seen.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from alignment.data.formats.common import RowError
from alignment.errors import UserError, impossible_name

SECONDS = 10  # of processor time for one input: what hangs takes longer on any machine
WAITING_SECONDS = 120  # of time: for what hangs without computing
SECRET = "planted-0b5e1d7a"  # the value of the environment variable PLANTED; no result may hold it
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn", "pickle.find_class")


class Broken(AssertionError):
    """A promise that did not hold: code ran, a file was written outside, the network was asked, or it took too long."""


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    `check(value, folder)` feeds it one value of `inputs`; it may raise UserError or RowError, and may write in
    `folder` alone, which is empty and the current one.
    """

    name: str
    group: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any, Path], object]
    slow: bool = False  # some tenths of a second an input


@dataclass
class _Watch:
    folder: str = ""
    seen: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder:
            found = self._violation(event, arguments)
            if found:
                self.seen.append(found)

    def _violation(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event in _RUNS:
            return f"{event}{arguments[:2]}"
        if event == "exec" and getattr(arguments[0], "co_filename", "").startswith(self.folder):
            return f"ran {arguments[0].co_filename}"
        if event == "socket.connect" and not _is_loopback(arguments[1]):
            return f"connected to {arguments[1]}"
        if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", None):
            return f"looked up {arguments[0]}"
        if event == "open":
            path, mode, flags = arguments
            writes = any(letter in (mode or "") for letter in "wax+") or (mode is None and (flags or 0) & _WRITES)
            return self._outside(event, path) if writes else None
        if event in ("os.link", "os.symlink"):
            return self._outside(event, arguments[1])
        if event in _CHANGES:
            return next((bad for path in arguments[:2] if (bad := self._outside(event, path))), None)
        return None

    def _outside(self, event: str, path: Any) -> str | None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        place = os.path.abspath(os.fsdecode(path))
        if place.startswith(self.folder + os.sep) or place in (self.folder, os.devnull, "/dev/tty"):
            return None
        return f"{event} {place}"


def _is_loopback(address: Any) -> bool:
    return isinstance(address, (str, bytes)) or str(address[0]) in ("127.0.0.1", "::1")


_WATCH = _Watch()
sys.addaudithook(_WATCH)  # for good: hooks cannot be taken away; without a folder it looks at nothing


def attempt(target: Target, value: Any) -> str:
    """`target` on one value: "result", or "refused" where it raised the toolkit's own error.

    Raises:
        Broken: what is promised did not hold.
        Exception: whatever else the code raised.
    """
    with _scratch() as folder, _watched(folder), _in_time(target.name):
        try:
            found, end = target.check(value, folder), "result"
        except (UserError, RowError) as error:
            found, end = str(error), "refused"
            if not found.strip():
                raise Broken("an error without a message") from error
        except OSError as error:  # the commands say it in one line
            if not impossible_name(error):
                raise
            found, end = str(error), "refused"
    if SECRET in repr(found):
        raise Broken(f"{target.name} gave away the environment: {found!r:.300}")
    return end


@contextmanager
def _scratch() -> Iterator[Path]:
    before, temporary = os.getcwd(), tempfile.tempdir
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="fuzz-")))
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    os.environ["PLANTED"] = SECRET
    try:
        yield folder
    finally:
        os.environ.pop("PLANTED", None)
        tempfile.tempdir = temporary
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    _WATCH.folder, _WATCH.seen = str(folder), []
    try:
        yield
    finally:
        _WATCH.folder = ""
        sys.dont_write_bytecode = bytecode
    if _WATCH.seen:
        raise Broken("; ".join(_WATCH.seen[:5]))


@contextmanager
def _in_time(name: str) -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise Broken(f"{name} does not end")

    limits = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, WAITING_SECONDS))
    before = [signal.signal(number, late) for number, _, _ in limits]
    try:
        for _, timer, seconds in limits:
            signal.setitimer(timer, seconds)
        yield
    finally:
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
