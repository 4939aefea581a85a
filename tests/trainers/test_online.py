"""The online loop: phases, what may go wrong in one, exact resume, and one process against two."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.config import RolloutConfig
from alignment.errors import UserError
from alignment.feedback.adapters import Function
from alignment.trainers.guards import Guards
from tests.launching import launch
from tests.trainers.online_runs import TRAINERS, config, distance, prompts, short, trainer_of, weights


@pytest.fixture(scope="module", params=["p3o", "nash_md"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """A run of six steps, with checkpoints: for p3o the third one stands in the middle of a phase."""
    folder = tmp_path_factory.mktemp(request.param)
    run = trainer_of(request.param, folder, 6)
    run.config.training.save_steps = 1
    run.args.save_steps, run.config.training.save_total_limit = 1, 10
    run.train()
    return request.param, run, folder


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


def test_a_phase_is_sampled_once_and_seen_in_each_epoch(whole: tuple[str, Any, Path]) -> None:
    _, run, folder = whole
    per_phase = run.config.rollout.epochs * 2
    assert run.steps_per_phase == per_phase
    sampled = {json.loads(line)["phase"] for line in (folder / "rollouts.jsonl").read_text().splitlines()}
    assert sampled == set(range(math.ceil(6 / per_phase)))
    for epoch in range(run.config.rollout.epochs):
        seen = [unit.id for place in (2 * epoch, 2 * epoch + 1) for unit in run.part(place)]
        assert sorted(seen) == sorted(unit.id for unit in run.experience) and len(seen) == 4
    logged = rows(folder)
    # The first part of a phase is on policy: the ratio to the sampling policy is one.
    assert [row["ratio"] == pytest.approx(1, abs=1e-5) for row in logged][::per_phase] == [True] * len(sampled)
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-5) and abs(logged[-1]["kl"]) > 1e-4
    assert {"reward", "length", "sampled_kl", "no_verdict", "truncated", "kl_coef"} <= logged[0].keys()


@pytest.mark.parametrize("step", [3, 4])
def test_a_resumed_run_ends_with_the_same_weights_bit_for_bit(
    whole: tuple[str, Any, Path], step: int, tmp_path: Path
) -> None:
    method, run, folder = whole
    again = trainer_of(method, tmp_path, 6)
    again.config.training.save_steps = 1
    again.resume(folder / "checkpoints" / f"checkpoint-{step}")
    assert distance(weights(run), weights(again)) == 0
    expected = [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows(folder)[step:]]
    assert [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows(tmp_path)] == expected


def test_two_processes_take_the_same_steps(whole: tuple[str, Any, Path], tmp_path: Path) -> None:
    method, run, _ = whole
    done = launch(["-m", "tests.trainers.online_runs", str(tmp_path), method, "6"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    other = torch.load(tmp_path / "weights.pt", weights_only=True)
    # Adam makes a rounding error of a gradient near zero into a step; so does a sampled token, where it tips one over.
    assert distance(weights(run), other) < 1e-3


def test_an_offset_of_the_reward_trains_the_same_policy(tmp_path: Path) -> None:
    def offset(prompt: Any, completion: str, context: Any) -> float:
        return short(prompt, completion, context) + 3.0 * context["offset"]

    found = []
    for number, reward in enumerate((short, offset)):
        run = trainer_of("p3o", tmp_path / str(number), 4, Function(reward))
        run.train()
        found.append(weights(run))
    assert distance(*found) < 1e-3


def test_no_verdicts_are_dropped_and_counted(tmp_path: Path) -> None:
    def half(prompt: Any, completion: str, context: Any) -> float:
        return math.nan if context["offset"] % 2 else short(prompt, completion, context)

    odd = [len(p.messages[0]["content"]) % 2 for p in prompts()]
    assert 0 < sum(odd) < len(odd)
    run = trainer_of("p3o", tmp_path, 4, Function(half))
    run.train()
    shares = {row["no_verdict"] for row in rows(tmp_path)}
    assert all(0 <= share < 1 for share in shares) and max(shares) > 0
    assert all(math.isfinite(row["loss"]) for row in rows(tmp_path))
    with pytest.raises(UserError, match="gave no verdict on any of the 4 prompts sampled at step 0"):
        trainer_of("p3o", tmp_path / "none", 4, Function(lambda *row: math.nan)).train()


def test_feedback_that_fails_keeps_the_steps_so_far(tmp_path: Path) -> None:
    calls = []

    def breaks(prompt: Any, completion: str, context: Any) -> float:
        calls.append(completion)
        if len(calls) > 8:  # in the second phase
            raise ConnectionError("the scoring service is gone")
        return short(prompt, completion, context)

    run = trainer_of("p3o", tmp_path, 6, Function(breaks))
    run.args.save_steps = 100
    with pytest.raises(UserError, match=r"failed at step 4: ConnectionError: the scoring service is gone\n.*resume="):
        run.train()
    again = trainer_of("p3o", tmp_path, 6)
    again.resume(tmp_path / "checkpoints" / "checkpoint-4")
    assert again.state.global_step == 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompts": 3}, "rollout.prompts=3 must be a multiple of training.batch_size=2"),
        ({"completions": 3}, "P3O compares two completions"),
        ({"top_p": 0.9}, "the method's estimates would be biased"),
        ({"temperature": 0.0}, "greedy"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        trainer_of("p3o", tmp_path, 2, **settings)


def test_no_feedback_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no feedback: give feedback=NAME"):
        TRAINERS["p3o"](config=config("p3o", 2), train=prompts(), folder=tmp_path)


@pytest.mark.parametrize("settings", [{"mixture": 0.0}, {"mixture": 1.0, "mixture_end": 0.0}, {"opponent_decay": 0.9}])
def test_nash_md_runs_against_every_opponent(settings: dict[str, Any], tmp_path: Path) -> None:
    run = trainer_of("nash_md", tmp_path, 4, **settings)
    run.train()
    assert all(0 <= row["win"] <= 1 for row in rows(tmp_path))
    if "opponent_decay" in settings:
        policy, mean = weights(run), run.mean_policy.model
        assert any(p.requires_grad for p in policy.values()) is False and run.opponent().model is mean
    if "mixture_end" in settings:
        assert run.mixture == pytest.approx(0.0)


@pytest.mark.parametrize("method", ["rloo", "grpo", "reinforce", "online_dpo", "expert_iteration", "ppo"])
def test_the_baselines_move_the_policy_the_same_way_after_a_resume(method: str, tmp_path: Path) -> None:
    run = trainer_of(method, tmp_path / "whole", 4, completions=3)
    before = weights(run)
    run.train()
    assert distance(before, weights(run)) > 1e-4
    assert all(math.isfinite(row["loss"]) and "reward" in row for row in rows(tmp_path / "whole"))
    again = trainer_of(method, tmp_path / "again", 4, completions=3)
    again.resume(tmp_path / "whole" / "checkpoints" / "checkpoint-2")
    assert distance(weights(run), weights(again)) == 0


def test_the_guards() -> None:
    watch = Guards(RolloutConfig(kl_limit=5.0), 0.1)
    watch.look(4.0, ["One answer.", "Another one."])
    assert watch.said == [] and watch.coefficient(0.5) == 0.1
    watch.look(6.0, ["the cat the cat the cat the cat the cat"] * 3)
    assert len(watch.said) == 3 and "the KL is 6.0 nats" in watch.said[0] and not watch.stop
    watch = Guards(RolloutConfig(kl_limit=5.0, on_kl_limit="raise", kl_coef_end=0.3), 0.1)
    watch.look(6.0, ["One answer.", "Another one."])
    assert watch.coefficient(0.5) == pytest.approx(0.3)  # half way to 0.3 is 0.2, times 1.5
    watch = Guards(RolloutConfig(kl_limit=5.0, on_kl_limit="stop"), 0.1)
    watch.look(6.0, ["One answer.", "Another one."])
    assert watch.stop
