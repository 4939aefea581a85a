"""The hub: what counts as no connection, and that the local cache is then asked at once."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from alignment.data import hub


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Outside of the tests' offline mode; waits are noted, not waited."""
    noted: list[float] = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.time, "sleep", noted.append)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return noted


def at(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def broken_server() -> Iterator[str]:
    class Broken(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_refused_connection_and_a_name_without_address_are_none(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, f"http://127.0.0.1:{free_port()}")
    assert not hub.is_reachable()
    assert pauses == [hub.PAUSE]  # asked a second time
    at(monkeypatch, "http://hub.invalid")
    assert not hub.is_reachable()


def test_an_error_is_an_answer(pauses: list[float], monkeypatch: pytest.MonkeyPatch, broken_server: str) -> None:
    at(monkeypatch, broken_server)
    assert hub.is_reachable() and pauses == []


def test_a_slow_hub_is_there(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT", 0.05)
    with socket.socket() as listening:  # takes the connection and says nothing
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        at(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert hub.is_reachable()


def test_a_connection_that_comes_back_is_one(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([socket.gaierror(-3, "Temporary failure in name resolution"), None])

    class Session:
        def head(self, *_: Any, **__: Any) -> None:
            if (error := next(answers)) is not None:
                raise RuntimeError("as the client words it") from error

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    assert hub.is_reachable() and pauses == [hub.PAUSE]


def test_without_a_connection_the_cache_alone_is_asked(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionError, match=r"no connection to http://127.*, and no copy in the local cache"):
        hub.load_from_hub("someone/pairs", None, "train")
    assert pauses == [hub.PAUSE] and datasets.config.HF_HUB_OFFLINE is False

    def load(*_: Any, **__: Any) -> bool:
        return datasets.config.HF_HUB_OFFLINE

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert hub.load_from_hub("someone/pairs", None, "train") is True
    monkeypatch.setattr(hub, "is_reachable", lambda: True)
    assert hub.load_from_hub("someone/pairs", None, "train") is False


def test_a_copy_in_the_local_cache_is_read_without_a_connection(
    pauses: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at(monkeypatch, f"http://127.0.0.1:{free_port()}")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}\n')
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path / "made"))
    (made,) = (tmp_path / "made" / "json").glob("*/*/*/")
    copy = tmp_path / "cache" / "someone___pairs" / "default" / "0.0.0" / made.name
    shutil.copytree(made, copy)
    for file in copy.glob("json-*.arrow"):
        file.rename(copy / file.name.replace("json-", "pairs-"))
    found = hub.load_from_hub("someone/pairs", None, "train")
    assert list(found) == [{"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}]
