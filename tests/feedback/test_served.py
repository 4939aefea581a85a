"""A served judge against a server that errs: what becomes of each failure, of budgets, bounds, keys and a kill."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openai")

from alignment.errors import UserError
from alignment.feedback.build import build_feedback
from alignment.feedback.judges import Critique, PairwiseJudge, PointwiseScore
from tests.feedback.fault_server import Answer, FaultServer
from tests.feedback.scripted import PROMPT, text_in

Says = Callable[[int, dict[str, Any]], Answer]


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    running: list[FaultServer] = []

    def start(says: Says | Answer) -> FaultServer:
        running.append(FaultServer(says if callable(says) else lambda number, body: says))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def judge_of(server: FaultServer, **settings: Any) -> PairwiseJudge:
    given = {"model": "m", "cache": False, "max_retries": 0, "both_orders": False, **settings}
    return PairwiseJudge(base_url=server.url, **given)


def ask(judge: PairwiseJudge, rows: int = 1) -> list[float]:
    return judge.prefer([PROMPT] * rows, [f"a{row}" for row in range(rows)], ["b"] * rows)


def test_what_is_sent_and_read(serve: Callable[..., FaultServer]) -> None:
    server = serve(lambda n, body: Answer("LINE A" if text_in(body["messages"], "first") == "good" else "LINE B"))
    judge = judge_of(server, both_orders=True, seed=7, temperature=0.5, max_tokens=99, extra={"top_k": 3})
    assert judge.prefer([PROMPT] * 3, ["good", "bad", "same"], ["bad", "good", "same"]) == [1.0, 0.0, 0.5]
    assert judge.counts == {"requests": 3, "cached": 0, "tokens": 300, "orders disagree": 1}  # the same is asked once
    sent = server.asked[0]
    assert {name: sent[name] for name in ("model", "seed", "temperature", "max_tokens", "top_k")} == {
        "model": "m",
        "seed": 7,
        "temperature": 0.5,
        "max_tokens": 99,
        "top_k": 3,
    }
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    silent = judge_of(server, seed=None, temperature=None, max_tokens=None)
    ask(silent)
    assert {"seed", "temperature", "max_tokens"}.isdisjoint(server.asked[-1])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=429), "status 429"),
        (Answer(status=500), "status 500"),
        (Answer(status=400, body=b'{"error": {"message": "context too long"}}'), "status 400"),
        (Answer(cut=True), "connection cut"),
        (Answer(delay=0.6), "time-out"),
        (Answer(body=b"<html>Bad gateway</html>", kind="text/html"), "not JSON"),
        (Answer(body=b'{"choices": [{"mess'), "not JSON"),
        (Answer(body=b"\xff\xfe{}"), "not JSON"),
        (Answer(body=b"[]"), "not JSON"),
        (Answer(body=b'{"choices": []}'), "not JSON"),
        (Answer(body=b'{"error": "overloaded"}'), "not JSON"),
        (Answer(None, refusal="I cannot help with that."), "refusal"),
        (Answer("LINE A", finish="content_filter"), "refusal"),
        (Answer("I'm sorry, but I can't judge that."), "no verdict line"),
        (Answer("LINE A", finish="length"), "cut off"),
        (Answer(""), "empty answer"),
        (Answer(None), "empty answer"),
        (Answer("LINE Q"), "unknown verdict word"),
        (Answer("Verdict: A"), "no verdict line"),
        (Answer("LINE A\nLINE B"), "several verdicts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_is_no_verdict_and_counted(serve: Callable[..., FaultServer], answer: Answer, reason: str) -> None:
    """One failure among three rows: the others keep their verdicts, whatever the kind of feedback."""
    server = serve(lambda n, body: answer if "a1" in body["messages"][-1]["content"] else Answer("Fine.\nLINE A"))
    judge = judge_of(server, timeout=0.3)
    found = ask(judge, 3)
    assert [math.isnan(p) for p in found] == [False, True, False]
    assert found[0] == found[2] == 1.0
    assert {key: n for key, n in judge.counts.items() if key.startswith("no verdict")} == {f"no verdict: {reason}": 1}


def test_no_failure_is_a_grade_or_a_review(serve: Callable[..., FaultServer]) -> None:
    server = serve(lambda n, body: [Answer(status=500), Answer("LINE 11"), Answer("Short.\nLINE 7.")][n % 3])
    common = {"base_url": server.url, "model": "m", "cache": False, "max_retries": 0, "concurrency": 1}
    reward = PointwiseScore(**common)
    assert str(reward.score([PROMPT] * 3, ["x", "y", "z"])) == "[nan, nan, 7.0]"
    server.says = lambda n, body: [Answer(status=500), Answer("LINE maybe"), Answer("Short.\nLINE no")][n % 3]
    reviews = Critique(**common).review([PROMPT] * 3, ["x", "y", "z"])
    assert [(r.text, r.satisfactory, r.annotator) for r in reviews] == [
        (None, None, None),
        (None, None, None),
        ("Short.", False, "m"),
    ]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept before it tries again."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("openai._base_client.anyio.sleep", sleep)
    return slept


def test_passing_failures_are_tried_again(serve: Callable[..., FaultServer], pauses: list[float]) -> None:
    """As the server asks, else with growing pauses; what is counted is one request."""
    faults = [Answer(status=429, headers={"Retry-After": "9"}), Answer(status=503), Answer(cut=True), Answer(delay=0.6)]
    server = serve(lambda n, body: faults[n] if n < len(faults) else Answer())
    judge = judge_of(server, max_retries=4, timeout=0.3)
    assert ask(judge) == [1.0]
    assert len(server.asked) == 5
    assert judge.counts == {"requests": 1, "cached": 0, "tokens": 100}
    assert pauses[0] == 9.0
    assert pauses[1] < pauses[2] < pauses[3] < 9.0


def test_the_retries_come_to_an_end(serve: Callable[..., FaultServer], pauses: list[float]) -> None:
    server = serve(Answer(status=429))
    assert math.isnan(ask(judge_of(server, max_retries=3))[0])
    assert (len(server.asked), len(pauses)) == (4, 3)


def test_requests_under_way_are_bounded(serve: Callable[..., FaultServer]) -> None:
    for bound in (1, 3):
        server = serve(Answer(delay=0.03))
        assert ask(judge_of(server, concurrency=bound), 8) == [1.0] * 8
        assert server.most_at_once == bound


@pytest.mark.parametrize(("budget", "answered"), [({"max_requests": 3}, 3), ({"max_total_tokens": 350}, 4)])
def test_a_budget_stops_cleanly(
    serve: Callable[..., FaultServer], tmp_path: Path, budget: dict[str, int], answered: int
) -> None:
    """What lies beyond is no verdict; what was answered is kept, and the next run pays for the rest alone."""
    server = serve(Answer())
    judge = judge_of(server, concurrency=1, cache=str(tmp_path), **budget)
    found = ask(judge, 6)
    assert [math.isnan(p) for p in found] == [False] * answered + [True] * (6 - answered)
    assert judge.counts["no verdict: budget"] == 6 - answered
    assert len(server.asked) == answered
    ask(judge, 6)
    assert len(server.asked) == answered  # the budget is the object's, over all its calls
    assert ask(judge_of(server, cache=str(tmp_path)), 6) == [1.0] * 6
    assert len(server.asked) == 6


def test_tokens_are_estimated_where_the_server_does_not_say(serve: Callable[..., FaultServer]) -> None:
    server = serve(Answer("LINE A", usage=False))
    judge = judge_of(server)
    ask(judge)
    sent = sum(len(message["content"]) for message in server.asked[0]["messages"])
    assert judge.counts["tokens"] == math.ceil((sent + len("Verdict-01234567: A")) / 4)


def test_the_cache_holds_answers_by_content(serve: Callable[..., FaultServer], tmp_path: Path) -> None:
    server = serve(lambda n, body: Answer("LINE Q" if "a1" in body["messages"][-1]["content"] else "LINE A"))
    first = ask(judge_of(server, cache=str(tmp_path)), 3)
    again = judge_of(server, cache=str(tmp_path))
    assert str(ask(again, 3)) == str(first) == "[1.0, nan, 1.0]"  # an answer that is no verdict was paid for, too
    assert again.counts == {"cached": 3, "no verdict: unknown verdict word": 1}
    assert len(server.asked) == 3
    for other in ({"seed": 1}, {"temperature": 0.1}, {"model": "n"}, {"max_tokens": 5}, {"extra": {"top_k": 1}}):
        before = len(server.asked)
        ask(judge_of(server, cache=str(tmp_path), **other))
        assert len(server.asked) == before + 1
    server.says = lambda n, body: Answer(status=500)
    assert math.isnan(ask(judge_of(server, cache=str(tmp_path), seed=2))[0])
    server.says = lambda n, body: Answer()
    assert ask(judge_of(server, cache=str(tmp_path), seed=2)) == [1.0]  # a failure is asked again


def test_a_killed_run_has_paid_for_nothing_twice(serve: Callable[..., FaultServer], tmp_path: Path) -> None:
    """SIGKILL while the eighth request is under way; the run after it asks for no answer that came."""
    runs: list[Any] = []
    started = threading.Event()

    def says(number: int, body: dict[str, Any]) -> Answer:
        if number == 7 and started.wait(10) and runs:
            os.kill(runs.pop().pid, signal.SIGKILL)
        return Answer()

    server = serve(says)
    run = multiprocessing.get_context("fork").Process(
        target=lambda: ask(judge_of(server, cache=str(tmp_path), concurrency=1), 12)
    )
    run.start()
    runs.append(run)
    started.set()
    run.join(30)
    assert run.exitcode == -signal.SIGKILL
    answered = len(server.asked) - 1  # the answer to the last one arrived nowhere
    started.clear()
    judge = judge_of(server, cache=str(tmp_path))
    assert ask(judge, 12) == [1.0] * 12
    assert answered == judge.counts["cached"] == 7
    assert len(server.asked) == 8 + 12 - 7


def test_no_server_is_one_line_after_the_retries(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    judge = PairwiseJudge(base_url=url, model="m", max_retries=1, cache=str(tmp_path))
    with pytest.raises(UserError, match=rf"^no server answers at {url} \(.*\)$"):
        ask(judge, 40)
    assert judge.counts["requests"] <= judge.concurrency


def test_a_server_that_goes_away_loses_nothing(serve: Callable[..., FaultServer], tmp_path: Path) -> None:
    server = serve(Answer())
    judge = judge_of(server, cache=str(tmp_path), concurrency=2)
    ask(judge, 5)
    url, port = server.url, server.http.server_address[1]
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match="no server answers"):
        ask(judge, 9)
    back = PairwiseJudge(base_url=url, model="m", cache=str(tmp_path), both_orders=False, max_retries=0)
    assert ask(back, 5) == [1.0] * 5  # all from disk: nothing listens on the port
    assert back.counts == {"cached": 5}
    assert str(port) in url


def test_keys(serve: Callable[..., FaultServer], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"^https://api.example.org/v1 needs a key: set the environment variable MY_KEY$"
    ):
        PairwiseJudge(base_url="https://api.example.org/v1", model="m", api_key_env="MY_KEY")
    denied = Answer(status=401, body=b'{"error": {"message": "no key"}}')
    server = serve(denied)
    with pytest.raises(UserError, match=r"asks for a key: set the environment variable OPENAI_API_KEY \(.*no key"):
        ask(judge_of(server))
    monkeypatch.setenv("MY_KEY", "secret-key")
    with pytest.raises(UserError, match=r"refuses the key in MY_KEY") as found:
        ask(judge_of(server, api_key_env="MY_KEY"))
    assert "secret-key" not in str(found.value)
    assert server.keys[-1] == "Bearer secret-key"
    judge = judge_of(server, api_key_env="MY_KEY")
    assert "secret-key" not in repr(judge) + str(judge.identity())
    PairwiseJudge(base_url="https://api.example.org/v1", model="m", api_key_env="MY_KEY")


def test_a_wrong_model_or_url_is_one_line(serve: Callable[..., FaultServer]) -> None:
    server = serve(Answer(status=404, body=b'{"error": {"message": "The model `m` does not exist"}}'))
    with pytest.raises(UserError, match=r"wrong URL, or no model 'm' \(.*does not exist.*\)$"):
        ask(judge_of(server), 3)


def test_what_the_server_says_of_a_failure_is_told_once(
    serve: Callable[..., FaultServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(Answer(status=400, body=b'{"error": {"message": "no such parameter: seed"}}'))
    judge = judge_of(server)
    ask(judge, 3)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{server.url}: status 400: ")
    assert "no such parameter: seed" in line
    assert judge.counts["no verdict: status 400"] == 3


def test_called_from_a_running_event_loop(serve: Callable[..., FaultServer]) -> None:
    server = serve(Answer())

    async def notebook() -> list[float]:
        return ask(judge_of(server), 3)

    assert asyncio.run(notebook()) == [1.0] * 3
    server.says = lambda n, body: Answer(status=401)

    async def refused() -> None:
        with pytest.raises(UserError, match="asks for a key"):
            ask(judge_of(server), 3)

    asyncio.run(refused())


def test_a_signal_ends_the_requests_under_way(serve: Callable[..., FaultServer], tmp_path: Path) -> None:
    """What a handler raises (Ctrl-C) comes out at once and as it is; answers that came are kept."""
    server = serve(lambda n, body: Answer(delay=0.0 if n < 3 else 5.0))
    judge = judge_of(server, cache=str(tmp_path), concurrency=2, timeout=20)

    def interrupt() -> None:
        while len(server.asked) < 5:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    def on_signal(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            ask(judge, 30)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(server.asked) == 5
    server.says = lambda n, body: Answer()
    after = judge_of(server, cache=str(tmp_path))
    assert ask(after, 30) == [1.0] * 30, after.counts
    assert after.counts["cached"] == 3


def test_settings_that_make_no_sense_are_refused_when_built() -> None:
    good = {"name": "judge_served", "base_url": "http://localhost:1/v1", "model": "m"}
    for change, message in (
        ({"model": None}, r"model=None: the name under which the server knows the model"),
        ({"base_url": "localhost:8000"}, r"base_url=localhost:8000: a URL such as"),
        ({"base_url": None}, r"needs a model"),
        ({"concurrency": 0}, r"concurrency=0"),
        ({"timeout": 0}, r"timeout=0"),
        ({"max_requests": -1}, r"max_requests=-1"),
        ({"extra": "top_k"}, r"extra=top_k: a mapping"),
        ({"read": "probabilities"}, r"a served model gives no probabilities"),
    ):
        with pytest.raises(UserError, match=message):
            build_feedback({**good, **change})
