"""A judge's server that fails for a while, or dies and comes back: the run ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("openai")

from alignment.errors import UserError
from alignment.feedback.judges import PairwiseJudge
from alignment.trainers.checkpoints import find_resume
from tests.feedback.fault_server import Answer, FaultServer
from tests.feedback.scripted import text_in
from tests.trainers.online_runs import trainer_of, weights

pytestmark = pytest.mark.slow
STEPS = 6  # three phases of two steps


def shorter(number: int, body: dict[str, Any]) -> Answer:
    first, second = (text_in(body["messages"], slot) for slot in ("first", "second"))
    return Answer("LINE A" if (len(first), first) <= (len(second), second) else "LINE B")


def run_of(folder: Path, server: FaultServer, retries: int = 0) -> Any:
    judge = PairwiseJudge(
        base_url=server.url, model="m", cache=False, max_retries=retries, both_orders=False, timeout=5, concurrency=1
    )
    return trainer_of("nash_md", folder, STEPS, feedback=judge)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, torch.Tensor]]:
    """The weights after a run whose judge was always there."""
    server = FaultServer(shorter)
    run = run_of(tmp_path_factory.mktemp("whole"), server)
    run.train()
    server.close()
    yield weights(run)


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_it_is_busy_for_some_requests(whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    busy = {5: Answer(status=503), 6: Answer(cut=True), 9: Answer(status=429, headers={"Retry-After": "0"})}
    server = FaultServer(lambda number, body: busy.get(number) or shorter(number, body))
    run = run_of(tmp_path, server, retries=3)
    run.train()
    server.close()
    assert same(weights(run), whole)


def test_it_dies_and_comes_back(whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    server = FaultServer(shorter)
    port = server.http.server_address[1]
    run = run_of(tmp_path, server)
    judge = run.judge

    def judging(experience: Any) -> Any:
        if run.state.global_step == 4:
            server.close()
        return judge(experience)

    run.judge = judging
    with pytest.raises(UserError) as caught:
        run.train()
    says, mend = str(caught.value).splitlines()
    assert says.startswith(f"the feedback failed at step 4: UserError: no server answers at http://127.0.0.1:{port}/v1")
    assert mend == f"Mend: the 4 steps so far are kept: resume={tmp_path}"

    back = FaultServer(shorter, port)
    again = run_of(tmp_path, back)
    again.resume(find_resume(str(tmp_path))[1])
    back.close()
    assert again.state.global_step == STEPS and same(weights(again), whole)
