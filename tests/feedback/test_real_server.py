"""A judge of the embedded model behind `transformers serve`: a real server, asked as a user would ask it."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("openai")
pytest.importorskip("fastapi", reason="pip install 'transformers[serving]'")
pytest.importorskip("uvicorn")

from alignment.feedback.build import build_feedback
from alignment.models.loading import resolve
from tests.feedback.scripted import PROMPT
from tests.launching import environment, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import httpx

    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [str(Path(sys.executable).parent / "transformers"), "serve", resolve("smollm2-135m")]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=output, env=environment()
        )
        try:
            for _ in range(240):
                assert server.poll() is None, log.read_text()[-3000:]
                try:
                    httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False)
                    break
                except httpx.HTTPError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def test_it_is_asked_and_its_answers_are_kept(url: str, tmp_path: Path) -> None:
    settings = {"name": "judge_served", "base_url": url, "model": resolve("smollm2-135m"), "cache": str(tmp_path)}
    settings |= {"max_tokens": 16, "concurrency": 2, "timeout": 300, "max_retries": 0}
    judge = build_feedback(settings)
    pairs = [PROMPT] * 2, ["A finch.", "Dogs."], ["A wren, I think.", "An owl."]
    found = judge.prefer(*pairs)
    assert all(math.isnan(p) or 0.0 <= p <= 1.0 for p in found)
    assert judge.counts["requests"] == 4
    assert judge.counts["tokens"] > 4 * 200  # the prompts alone
    # Whatever this small model wrote, it wrote something: nothing failed on the way.
    failures = {reason.removeprefix("no verdict: ") for reason in judge.counts if reason.startswith("no verdict")}
    assert failures <= {"cut off", "no verdict line", "unknown verdict word", "several verdicts", "empty answer"}
    again = build_feedback(settings)
    assert str(again.prefer(*pairs)) == str(found)
    assert (again.counts["cached"], again.counts["requests"]) == (4, 0)
    other = build_feedback({**settings, "model": "another"})
    assert math.isnan(other.prefer(*pairs)[0])
    assert other.counts["no verdict: status 400"] == 4
