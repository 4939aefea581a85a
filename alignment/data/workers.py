"""A function over pieces of data, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from alignment.errors import UserError

Result = TypeVar("Result")
AHEAD = 4  # pieces a process may be ahead of what is taken from it
_function: Callable[[Any], Any] | None = None  # in a worker


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pieces(count: int, size: int) -> list[range]:
    """range(count) in ranges of at most `size`."""
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def over_pieces(
    function: Callable[[range], Result], parts: Sequence[range], workers: int | None = None
) -> Iterator[Result]:
    """`function` of each part, in order, made in `workers` processes; None is one for each core.

    The processes are forks, so `function` may hold what is mapped or loaded here without a copy. What it raises is
    raised here. Memory holds a few results for each process. Where nothing forks, all is done in this process.

    Raises:
        UserError: a process was killed, for its memory, say.
    """
    workers = min(workers or cores(), len(parts))
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, parts)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _begin, (function, os.getpid())) as pool:
        waiting: deque[Future[Result]] = deque()
        todo = iter(parts)
        try:
            for part in todo:
                waiting.append(pool.submit(_run, part))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                f"one of the {workers} processes that prepare the data was killed, most likely for its memory; "
                "data.workers=1 needs the least"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(function: Callable[[Any], Any], parent: int) -> None:
    """In a new worker: signals are the parent's to answer, and a parent that is gone takes its workers along."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _run(part: Any) -> Any:
    assert _function is not None
    return _function(part)
