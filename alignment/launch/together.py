"""What the processes of one launch do together outside of a trainer: one writes, all know, and all stop at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from alignment.errors import UserError
from alignment.resumable import OneProcess, ResumableFile
from alignment.trainers.termination import TERMINATION

T = TypeVar("T")


def on_first(state: PartialState, make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, on every rank, or the UserError that it raises there. All ranks must call it."""
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = make()
        except UserError as error:
            found[1] = str(error)
    broadcast_object_list(found)
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


class Together(OneProcess):
    """Work in batches by all processes of a launch, which all must call it alike: rank 0 writes the file.

    SIGTERM ends it between two batches, on all of them, with `Interrupted`.
    """

    def __init__(self, state: PartialState) -> None:
        self.state, self.rank, self.size = state, state.process_index, state.num_processes

    def file(self, path: Path, settings: Mapping[str, Any], **options: Any) -> ResumableFile:
        opened: list[ResumableFile] = []

        def progress() -> tuple[int, Counter[str]]:
            opened.append(ResumableFile(path, settings, **options))
            return opened[0].batches, opened[0].totals

        done = on_first(self.state, progress)
        return opened[0] if opened else _Follower(*done)

    def on_first(self, make: Callable[[], T]) -> T:
        return on_first(self.state, make)

    def gathered(self, mine: list[T]) -> list[T]:
        return gather_object(mine) if self.size > 1 else mine

    def stoppable(self, hint: Callable[[], str]) -> Any:
        return nullcontext()

    @contextmanager
    def progress(self, what: str, done: int, total: int) -> Iterator[Callable[[int], None]]:
        if self.rank:
            yield lambda more: None
            return
        with super().progress(what, done, total) as advance:
            yield advance

    def after_batch(self) -> None:
        TERMINATION.raise_if_agreed(self.state)


class _Follower(ResumableFile):
    """The file as the other ranks see it: they count along, and rank 0 writes."""

    def __init__(self, batches: int, totals: Counter[str]) -> None:
        self.batches, self.totals = batches, totals

    def add(self, rows: Iterable[Mapping[str, Any]], totals: Mapping[str, float]) -> None:
        self.batches += 1
        self.count(totals)

    def close(self) -> None:
        """There is nothing to close."""
