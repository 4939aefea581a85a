"""Rows of a data set on the hub, or of its copy in the local cache."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIES, PAUSE, TIMEOUT = 2, 1.0, 10.0  # asking whether the hub is there; the last two in seconds
_UNREACHABLE = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def load_from_hub(name: str, configuration: str | None, split: str, streaming: bool = False) -> Any:
    """The split of `name` as a `datasets.Dataset`, or with `streaming` as an `IterableDataset`.

    Without a connection the local cache alone is asked: the hub's client would try six times, for half a minute.

    Raises:
        ConnectionError: there is neither a connection nor a copy.
        Exception: of many kinds, from the hub and from what it holds.
    """
    import datasets

    if datasets.config.HF_HUB_OFFLINE or is_reachable():
        return datasets.load_dataset(name, configuration, split=split, streaming=streaming)
    from huggingface_hub.constants import ENDPOINT

    with _offline(datasets.config):
        try:
            return datasets.load_dataset(name, configuration, split=split)
        except ConnectionError as error:
            raise ConnectionError(f"no connection to {ENDPOINT}, and no copy in the local cache") from error


def is_reachable() -> bool:
    """Whether the hub, or the proxy on the way to it, takes connections.

    It does not where its name has no address or the connection is refused, twice in a row. A hub that is slow or
    answers with an error is there: its client may wait and try again.
    """
    from huggingface_hub import get_session
    from huggingface_hub.constants import ENDPOINT

    for left in reversed(range(TRIES)):
        try:
            get_session().head(ENDPOINT, timeout=TIMEOUT)
            return True
        except Exception as error:  # of another library in each version of the client; the system's own lies below it
            if not _says_no_connection(error):
                return True
        if left:
            time.sleep(PAUSE)
    return False


def _says_no_connection(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, socket.gaierror) or (isinstance(error, OSError) and error.errno in _UNREACHABLE):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before
