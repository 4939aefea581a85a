"""The guard of preference training, on metrics made by hand, and on runs that really go wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.config import GuardConfig, RunConfig
from alignment.config_check import check_values
from alignment.errors import UserError
from alignment.feedback.adapters import Function
from alignment.trainers.checkpoints import find_resume
from alignment.trainers.divergence import Divergence, Trend, worst
from tests.faults.runs import dpo, same, weights
from tests.trainers.online_runs import TRAINERS, config, prompts

SEEN = list[tuple[str, int]]


def signs(guard: Divergence, rows: list[dict[str, Any]]) -> SEEN:
    """(sign, step) of all that is wrong in rows of metrics, one a step from 1 on."""
    return [(sign["sign"], sign["step"]) for step, row in enumerate(rows, 1) for sign in guard.look(step, row)]


def training(**columns: list[float]) -> list[dict[str, Any]]:
    return [{"loss": 1.0, **dict(zip(columns, values, strict=True))} for values in zip(*columns.values(), strict=True)]


def test_a_trend_is_the_first_rows_against_the_latest() -> None:
    trend = Trend(2)
    found = []
    for value in (1.0, 3.0, 5.0, 7.0, 9.0):
        trend.add(value)
        found.append((trend.start, trend.now))
    assert found == [(None, None), (None, 2.0), (None, 4.0), (2.0, 6.0), (2.0, 8.0)]
    assert Trend(**json.loads(json.dumps(trend.state()))).now == 8.0


def test_collapse_of_the_chosen_log_prob() -> None:
    rows = training(chosen_logp=[-1.0, -2.0, -2.2, -2.4, -2.6, -2.8, -9.0])
    # From -1.5: the means of two rows are -2.1, -2.3, -2.5, -2.7; the fourth has lost more than one nat.
    assert signs(Divergence(GuardConfig(rows=2, chosen_logp_drop=1.0), None), rows) == [("chosen_logp", 6)]
    assert signs(Divergence(GuardConfig(rows=2, chosen_logp_drop=None), None), rows) == []
    one_bad_row = training(chosen_logp=[-1.0, -1.0, -1.0, -1.0, -2.5, -1.0, -1.0, -1.0])
    assert signs(Divergence(GuardConfig(rows=2, chosen_logp_drop=1.0), None), one_bad_row) == []


def test_explosion_of_the_length() -> None:
    rows = training(length=[10.0, 10.0, 15.0, 20.0, 20.0, 22.0])
    assert signs(Divergence(GuardConfig(rows=2, length_ratio=2.0), None), rows) == [("length", 6)]


def test_log_ratio_over_its_limit() -> None:
    rows = training(chosen_reward=[0.1, -0.2, -0.4], rejected_reward=[-1.0, -1.0, -3.2])
    guard = Divergence(GuardConfig(rows=2, log_ratio_limit=20.0), beta=0.1)  # means: -10 and -21 nats for the rejected
    assert signs(guard, rows) == [("log_ratio_rejected", 3)]
    assert signs(Divergence(GuardConfig(rows=2), beta=0.1), rows) == []


def test_trained_reward_rises_while_the_held_out_one_falls() -> None:
    held_out = [2.0, 2.1, 1.9, 1.0, 1.1, 0.9]
    rows = training(reward=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], held_out_reward=held_out)
    assert signs(Divergence(GuardConfig(rows=2, held_out_looks=3), None), rows) == [("held_out", 6)]
    falling_too = training(reward=[1.5, 1.4, 1.3, 1.2, 1.1, 1.0], held_out_reward=held_out)
    assert signs(Divergence(GuardConfig(rows=2, held_out_looks=3), None), falling_too) == []
    noise = training(reward=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], held_out_reward=[2.0, 1.0, 1.5, 1.9, 0.9, 1.4])
    assert signs(Divergence(GuardConfig(rows=2, held_out_looks=3), None), noise) == []


def test_margin_of_training_against_that_of_held_out_pairs() -> None:
    rows: list[dict[str, Any]] = []
    for step, held_out in enumerate([0.5, 0.6, 0.1, 0.0]):
        rows += [*training(margin=[0.1 * step, 0.1 * step]), {"eval_loss": 1.0, "eval_margin": held_out}]
    assert signs(Divergence(GuardConfig(rows=2, held_out_looks=2), None), rows) == [("held_out", 12)]


def test_what_was_seen_is_kept_over_a_resume() -> None:
    rows = training(chosen_logp=[-1.0, -1.0, -2.5, -2.5, -2.5, -2.5])
    guard = Divergence(GuardConfig(rows=2), None)
    assert signs(guard, rows[:3]) == []
    again = Divergence(GuardConfig(rows=2), None)
    again.load(json.loads(json.dumps(guard.state())))
    assert [sign["sign"] for sign in again.look(4, rows[3])] == ["chosen_logp"]
    assert again.look(5, rows[4]) == []  # said once
    later = Divergence(GuardConfig(rows=2), None)
    later.load(json.loads(json.dumps(again.state())))
    assert later.look(5, rows[4]) == []


def test_the_worst_examples() -> None:
    rows = [{"id": str(n), "margin": float(n - 20)} for n in range(30)]
    assert [row["id"] for row in worst(rows, "margin", "held_out")][:2] == ["0", "1"]
    low = [{"id": str(n), "chosen_logp": -float(n)} for n in range(30)]
    assert [row["id"] for row in worst(low, "chosen_logp", "chosen_logp")] == [str(n) for n in range(29, 13, -1)]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"action": "rollback"}, "did you mean roll_back?"),
        ({"action": "roll_back"}, "guard.action=roll_back needs training.save_steps=N"),
        ({"log_ratio_limit": 10.0}, "guard.log_ratio_limit needs a loss with loss.beta"),
        ({"length_ratio": 1.0}, "guard.length_ratio=1.0: must be greater than 1"),
        ({"held_out": "plain_word"}, "plain_words"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    run = RunConfig(loss={"name": "hinge"}, guard=GuardConfig(**settings))
    with pytest.raises(UserError, match=says):
        check_values(run)


WILD = dict(learning_rate=1.0, max_grad_norm=0.0, optimizer="sgd", max_steps=12, scheduler="constant")


def test_a_run_with_an_absurd_learning_rate_is_rolled_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = {"action": "roll_back", "rows": 2, "chosen_logp_drop": 0.5}
    run = dpo(tmp_path, guard=guard, **WILD, save_steps=1, save_total_limit=20)
    before: list[list[torch.Tensor]] = []
    step = run.training_step
    run.training_step = lambda *given: (before.append(weights(run)), step(*given))[1]  # type: ignore[method-assign]
    run.train()
    (entry,) = json.loads((tmp_path / "divergence.json").read_text())
    seen = entry["step"]
    assert entry["sign"] == "chosen_logp" and entry["value"] > 0.5 and entry["action"] == "roll_back"
    assert 4 <= seen < 12 == run.args.max_steps and len(before) == seen
    assert len(entry["examples"]) == 2 and all(row["id"].startswith("pair-") for row in entry["examples"])
    back = seen - 2
    assert run.state.global_step == back and same(weights(run), before[back])  # before the two rows that it is told by
    assert f"the model is that of step {back} again" in capsys.readouterr().out
    assert not (tmp_path / "checkpoints" / f"checkpoint-{seen}").exists()


@pytest.mark.slow
def test_stop_and_warn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = {"action": "stop", "rows": 2, "chosen_logp_drop": 0.5}
    run = dpo(tmp_path, guard=guard, **WILD, save_steps=None)
    run.train()
    (entry,) = json.loads((tmp_path / "divergence.json").read_text())
    stopped = entry["step"]
    assert run.state.global_step == stopped < 12 and "stopping, with a checkpoint" in capsys.readouterr().out
    checkpoint = find_resume(str(tmp_path))[1]
    assert checkpoint.name == f"checkpoint-{stopped}"
    again = dpo(tmp_path, guard=guard, **WILD, save_steps=None)
    again.resume(checkpoint)
    assert again.state.global_step == stopped and same(weights(again), weights(run))
    on = dpo(tmp_path, guard={**guard, "action": "warn"}, **WILD, save_steps=None)  # if it is wanted all the same
    on.resume(checkpoint)
    assert on.state.global_step == 12


def test_online_a_second_reward_on_the_same_samples(tmp_path: Path) -> None:
    """The trained reward likes what the held-out one does not; both are in the metrics, and the guard sees it."""
    settings = config("p3o", 12)
    settings.guard = GuardConfig(rows=1, held_out_looks=2, held_out={"name": "length"})
    times = iter(range(1000))
    rising = Function(lambda *row: float(next(times)))
    run = TRAINERS["p3o"](config=settings, train=prompts(), folder=tmp_path, feedback=rising)
    falling = iter(range(1000, 0, -1))
    run.held_out_reward = Function(lambda *row: float(next(falling)))
    run.train()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["held_out_reward"] for row in rows[::4]] == [996.5, 988.5, 980.5]  # eight answers a phase
    (entry,) = json.loads((tmp_path / "divergence.json").read_text())
    assert entry["sign"] == "held_out" and entry["examples"][0]["answers"]


def test_offline_there_are_no_samples_to_score(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="guard.held_out scores sampled answers"):
        dpo(tmp_path, guard={"held_out": "length"})
