"""The store of values by content. What is wrong with a file is tested with the reference cache, which is one."""

from __future__ import annotations

import threading
from pathlib import Path

from alignment.storage import ContentStore


def test_what_was_put_is_got_and_the_last_one_stays(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "deep" / "er" / "things.sqlite3", "things")
    values = {b"a": 0.1 + 0.2, b"\x00": [1, "ü\ud800", None], b"c": {"x": False}, b"zero": 0, b"empty": ""}
    store.put({**values, b"none": None})
    assert store.get([*values, b"none", b"other"]) == [*values.values(), None, None]
    store.put({b"a": -1.5})
    assert ContentStore(store.file, "things").get([b"a", b"zero"]) == [-1.5, 0]
    assert store.get([]) == []


def test_threads_share_a_store(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "things.sqlite3", "things")

    def write(writer: int) -> None:
        for number in range(20):
            store.put({f"{writer} {number}".encode(): number})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [f"{writer} {number}".encode() for writer in range(4) for number in range(20)]
    assert store.get(keys) == [number for _ in range(4) for number in range(20)]


def test_a_store_that_cannot_be_used_says_so_once(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ContentStore(tmp_path / "file" / "things.sqlite3", "things")
    store.put({b"a": 1})
    assert store.get([b"a"]) == [None]
    assert capsys.readouterr().out.count("things: going on without the cache") == 1
