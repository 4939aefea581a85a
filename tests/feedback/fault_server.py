"""A chat completions endpoint on loopback that errs as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.feedback.scripted import line_of


@dataclass
class Answer:
    """What one request gets. `text` may hold LINE, which stands for the verdict line's begin."""

    text: str | None = "Reasons.\nLINE A"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # in place of a chat completion
    kind: str = "application/json"
    cut: bool = False  # the connection ends in the middle of the body
    delay: float = 0.0  # seconds before the answer
    finish: str = "stop"
    refusal: str | None = None
    usage: bool = True


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # connections that wait to be taken; beyond, they would be reset


class FaultServer:
    """Serves on a port, a free one unless given, until closed.

    `says` makes the answer from the request's number (from 0) and body.
    """

    def __init__(self, says: Callable[[int, dict[str, Any]], Answer], port: int = 0) -> None:
        self.says = says
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, *args: Any) -> None: ...

        self.http = Listener(("127.0.0.1", port), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        content = handler.rfile.read(int(handler.headers["Content-Length"]))
        if not content:
            return  # the client has gone
        body = json.loads(content)
        with self.lock:
            number = len(self.asked)
            self.asked.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.says(number, body)
            time.sleep(answer.delay)
            self.send(handler, answer, body)
        except OSError:
            pass  # the client has gone
        finally:
            with self.lock:
                self.at_once -= 1

    def send(self, handler: BaseHTTPRequestHandler, answer: Answer, asked: dict[str, Any]) -> None:
        content = answer.body if answer.body is not None else json.dumps(completion(answer, asked)).encode()
        handler.send_response(answer.status)
        for name, value in {"Content-Type": answer.kind, **answer.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if answer.cut else content)
        handler.wfile.flush()
        if answer.cut:
            handler.close_connection = True


def completion(answer: Answer, asked: dict[str, Any]) -> dict[str, Any]:
    text = answer.text and answer.text.replace("LINE", line_of(asked["messages"]))
    message = {"role": "assistant", "content": text, "refusal": answer.refusal}
    found: dict[str, Any] = {
        "id": "0",
        "object": "chat.completion",
        "created": 0,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
    }
    if answer.usage:
        found["usage"] = {"prompt_tokens": 90, "completion_tokens": 10, "total_tokens": 100}
    return found
