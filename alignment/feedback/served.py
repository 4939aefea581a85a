"""A judge model behind an OpenAI-compatible endpoint, asked by the `openai` package, many requests at a time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.chat import ChatSettings
from alignment.feedback.verdicts import Reply
from alignment.models.loading import cache_folder
from alignment.storage import ContentStore

CACHE_FILE = "answers.sqlite3"
CONNECT_SECONDS = 10.0  # a server that is not there is no slow one
CHARACTERS_A_TOKEN = 4  # taken where a server does not say how many tokens it used
BUDGET = Reply(None, "budget")


class ServedChat:
    """Any OpenAI-compatible chat completions endpoint.

    Every answer is put on disk as it arrives, under the digest of all that the request holds, so that a killed run has
    paid for nothing twice. What an answer says does not matter for that; a request that failed is asked again.
    """

    def __init__(self, settings: ChatSettings, counts: Counter[str]) -> None:
        self.openai = checks.package("openai", "feedback from a served model")
        self.url, self.model = str(settings.base_url), settings.model
        place = urlsplit(self.url)
        if place.scheme not in ("http", "https") or not place.hostname:
            raise checks.WrongSetting(settings, "base_url", "a URL such as http://localhost:8000/v1 is needed")
        if not self.model:
            raise checks.WrongSetting(settings, "model", "the name under which the server knows the model is needed")
        self.settings, self.counts, self.name = settings, counts, self.model
        self.said: set[str] = set()
        self.local = _is_loopback(place.hostname)
        self.key = os.environ.get(settings.api_key_env)
        if not self.key and not self.local:
            raise UserError(f"{self.url} needs a key: set the environment variable {settings.api_key_env}")
        self.store = None
        if settings.cache is not False:
            folder = cache_folder() if settings.cache is True else Path(settings.cache).expanduser()
            self.store = ContentStore(folder / CACHE_FILE, "answers of served models")

    def generate(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """One reply to each conversation; the same conversation is asked once.

        Raises:
            UserError: the server is not there, refuses the key, or does not know the model. What was answered until
                then is in the cache.
        """
        bodies = [self._body(conversation) for conversation in conversations]
        keys = [self._key(body) for body in bodies]
        kept = self.store.get(keys) if self.store else [None] * len(keys)
        replies = {key: _reply(value) for key, value in zip(keys, kept, strict=True) if value is not None}
        self.counts["cached"] += sum(value is not None for value in kept)
        todo = {key: body for key, body in zip(keys, bodies, strict=True) if key not in replies}
        if todo:
            _run(self._ask_all(todo, replies))
        return [replies[key] for key in keys]

    def _body(self, conversation: list[Message]) -> dict[str, Any]:
        s = self.settings
        sampling = {"temperature": s.temperature, "seed": s.seed, "max_tokens": s.max_tokens}
        given = {name: value for name, value in sampling.items() if value is not None}
        return {"model": self.model, "messages": conversation, **given, "extra_body": s.extra or {}}

    def _key(self, body: dict[str, Any]) -> bytes:
        content = json.dumps([self.url, body], sort_keys=True, default=str)
        return hashlib.blake2b(content.encode(), digest_size=16).digest()

    async def _ask_all(self, todo: dict[bytes, dict[str, Any]], replies: dict[bytes, Reply]) -> None:
        """Fill `replies` by at most `concurrency` requests at a time. What ends it lets those under way arrive."""
        waiting: Iterator[tuple[bytes, dict[str, Any]]] = iter(todo.items())
        failures: list[UserError] = []

        async def work(client: Any) -> None:
            for key, body in waiting:
                if failures:
                    return
                try:
                    replies[key] = BUDGET if self._spent() else await self._ask(client, key, body)
                except UserError as error:
                    failures.append(error)

        async with self.openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.key or "none",
            timeout=self.openai.Timeout(self.settings.timeout, connect=min(CONNECT_SECONDS, self.settings.timeout)),
            max_retries=self.settings.max_retries,
            # A proxy that the environment names is for what lies outside.
            http_client=self.openai.DefaultAsyncHttpxClient(trust_env=not self.local),
        ) as client:
            await asyncio.gather(*(work(client) for _ in range(min(self.settings.concurrency, len(todo)))))
        if failures:
            raise failures[0]

    def _spent(self) -> bool:
        s = self.settings
        requests = s.max_requests is not None and self.counts["requests"] >= s.max_requests
        return requests or (s.max_total_tokens is not None and self.counts["tokens"] >= s.max_total_tokens)

    async def _ask(self, client: Any, key: bytes, body: dict[str, Any]) -> Reply:
        openai = self.openai
        self.counts["requests"] += 1
        try:
            answer = await client.chat.completions.create(**body)
        except openai.APIConnectionError as error:  # a time-out is one
            if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
                raise UserError(f"no server answers at {self.url} ({error.__cause__})") from error
            late = isinstance(error, openai.APITimeoutError)
            return Reply(None, "time-out" if late else "connection cut")
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            name = self.settings.api_key_env
            mend = f"refuses the key in {name}" if self.key else f"asks for a key: set the environment variable {name}"
            raise UserError(f"{self.url} {mend} ({_short(error.message)})") from error
        except openai.NotFoundError as error:
            raise UserError(f"{self.url}: wrong URL, or no model '{self.model}' ({_short(error.message)})") from error
        except openai.APIStatusError as error:
            failure = f"status {error.status_code}"
            if failure not in self.said:  # what the server says of it, once
                self.said.add(failure)
                print(f"{self.url}: {failure}: {_short(error.message)}")
            return Reply(None, failure)
        except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError):  # a body that cannot be read
            return Reply(None, "not JSON")
        value = _value(answer)
        if value is None:
            return Reply(None, "not JSON")
        self.counts["tokens"] += _tokens(answer, body, value)
        if self.store:
            self.store.put({key: value})
        return _reply(value)


def _value(answer: Any) -> dict[str, Any] | None:
    """What is kept of an answer; None where it is none, such as the page of a proxy."""
    try:
        choice = answer.choices[0]
        text, refusal = choice.message.content, getattr(choice.message, "refusal", None)
        if not isinstance(text, (str, type(None))):
            return None
        return {"text": text, "finish": choice.finish_reason, "refusal": bool(refusal)}
    except (AttributeError, LookupError, TypeError):
        return None


def _reply(value: dict[str, Any]) -> Reply:
    if value["refusal"] or value["finish"] == "content_filter":
        return Reply(value["text"], "refusal")
    if not (value["text"] or "").strip():
        return Reply(None, "empty answer")
    return Reply(value["text"], "cut off" if value["finish"] == "length" else None)


def _tokens(answer: Any, body: dict[str, Any], value: dict[str, Any]) -> int:
    used = getattr(getattr(answer, "usage", None), "total_tokens", None)
    if isinstance(used, int):
        return used
    characters = len(value["text"] or "") + sum(len(message["content"]) for message in body["messages"])
    return -(-characters // CHARACTERS_A_TOKEN)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _short(message: Any) -> str:
    return " ".join(str(message).split())[:200]


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end in a thread of its own, since this one may have a running event loop (a notebook).

    A signal raises here, where it breaks nothing; `work` is then cancelled.
    """
    tasks: list[asyncio.Task[None]] = []

    async def run() -> None:
        tasks.append(asyncio.ensure_future(work))
        await tasks[0]

    with ThreadPoolExecutor(max_workers=1) as pool:
        running = pool.submit(asyncio.run, run())
        try:
            running.result()
        except BaseException:
            if tasks and not running.done():
                tasks[0].get_loop().call_soon_threadsafe(tasks[0].cancel)
            raise
