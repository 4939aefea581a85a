"""The online loop: phases, what may go wrong in one, exact resume, and one process against two."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.batching.groups import Group
from alignment.config import RolloutConfig
from alignment.errors import Interrupted, UserError
from alignment.feedback.adapters import Function
from alignment.rollouts.experience import Experience
from alignment.trainers.guards import Guards
from alignment.trainers.online import share_of
from alignment.trainers.ppo import whitened
from alignment.trainers.termination import TERMINATION
from tests.launching import launch
from tests.trainers.online_runs import TRAINERS, config, distance, prompts, short, trainer_of, weights


@pytest.fixture(scope="module", params=["p3o", "nash_md", "pit"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    """A run of six steps, with checkpoints: the third one stands in the middle of a phase."""
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
    first, second = rows(run.folder)[0], rows(tmp_path)[0]
    assert all(second[key] == pytest.approx(first[key], rel=1e-3, abs=1e-5) for key in ("loss", "grad_norm"))
    # Adam makes a rounding error of a gradient near zero into a step; and where it tips a sampled token over, which
    # depends on the CPU, the answers behind it are others. Steps of other prompts are further apart than this.
    assert distance(weights(run), other) < 0.05


def test_an_offset_of_the_reward_trains_the_same_policy(tmp_path: Path) -> None:
    def offset(prompt: Any, completion: str, context: Any) -> float:
        return short(prompt, completion, context) + 3.0 * context["offset"]

    for scale in (False, True):
        found = []
        for number, reward in enumerate((short, offset)):
            run = trainer_of("p3o", tmp_path / f"{scale} {number}", 4, Function(reward), scale_rewards=scale)
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
        ({"top_p": 0.9}, "rollout.top_p=0.9 .* estimates would be biased\nMend: rollout.top_p=1"),
        ({"temperature": 0.0}, "rollout.temperature=0 is greedy"),
        ({"max_new_tokens": 100_000}, "go over the model's"),
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


def test_a_signal_while_a_phase_is_made_keeps_the_steps_so_far(
    whole: tuple[str, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, uninterrupted, _ = whole
    calls = []
    of_a_phase = 16 if method == "pit" else 8  # a gap asks for the reference's reward, too

    def reward(prompt: Any, completion: str, context: Any) -> float:
        calls.append(completion)
        monkeypatch.setattr(TERMINATION, "asked", len(calls) > of_a_phase)  # in the second phase
        return short(prompt, completion, context)

    run = trainer_of(method, tmp_path, 6, Function(reward))
    run.args.save_steps = 100
    with pytest.raises(Interrupted):
        run.train()
    monkeypatch.setattr(TERMINATION, "asked", False)
    again = trainer_of(method, tmp_path, 6)
    again.config.training.save_steps = again.args.save_steps = 100
    again.resume(tmp_path / "checkpoints" / f"checkpoint-{run.steps_per_phase}")
    assert distance(weights(uninterrupted), weights(again)) == 0


def test_feedback_that_says_nothing_any_more_keeps_the_steps_so_far(tmp_path: Path) -> None:
    said = iter([1.0, 2.0] * 4)
    run = trainer_of("p3o", tmp_path, 6, Function(lambda *row: next(said, math.nan)))
    run.args.save_steps = 100
    with pytest.raises(
        UserError, match="on any of the 4 prompts sampled at step 4.*\nMend: the 4 steps so far are kept"
    ):
        run.train()
    assert (tmp_path / "checkpoints" / "checkpoint-4").is_dir()


def test_ppo_resumes_on_the_schedule_of_its_kl_from_the_seeds_weights_and_notes_a_phase_once(tmp_path: Path) -> None:
    first, second = (trainer_of("ppo", tmp_path, 4, kl_coef_end=2.0) for _ in range(2))
    assert distance(weights(first), weights(second)) == 0  # a fresh adapter follows the seed
    first.train()
    noted = (tmp_path / "rollouts.jsonl").read_text()
    second.resume(tmp_path / "checkpoints" / "checkpoint-2")  # at the begin of a phase
    assert distance(weights(first), weights(second)) == 0
    assert (tmp_path / "rollouts.jsonl").read_text() == noted
    assert [json.loads(line)["step"] for line in noted.splitlines()] == [0] * 4 + [2] * 4


def test_a_step_for_which_no_prompt_is_left_changes_nothing(tmp_path: Path) -> None:
    found = []
    for name, steps in (("one", 1), ("two", 2)):
        run = trainer_of("expert_iteration", tmp_path / name, steps)
        part = run.part
        run.part = lambda place, part=part: [] if place else part(place)  # the second step of the phase has none
        run.train()
        found.append(weights(run))
        assert run.state.global_step == steps
    assert distance(*found) == 0  # and so no optimiser moves by its momentum


def test_an_epoch_samples_each_prompt_once_however_often_a_phase_is_passed(tmp_path: Path) -> None:
    settings = config("p3o", 0, prompts=2, epochs=2)
    settings.training.max_steps, settings.training.epochs = None, 1
    run = TRAINERS["p3o"](config=settings, train=prompts(), folder=tmp_path, feedback=Function(short))
    run.train()
    shown = [json.loads(line)["prompt"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert sorted(shown) == sorted(p.messages[-1]["content"] for p in prompts())
    assert [row["epoch"] for row in rows(tmp_path)] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])


def test_the_kl_limit_stops_before_an_update(tmp_path: Path) -> None:
    expected = trainer_of("p3o", tmp_path / "four", 4)
    expected.train()
    run = trainer_of("p3o", tmp_path / "run", 8, kl_limit=1e-6, on_kl_limit="stop")
    run.guards.look = lambda kl, texts, look=run.guards.look: look(float(run.phase), texts)  # 1 nat in the second phase
    run.train()
    assert distance(weights(expected), weights(run)) == 0
    logged = rows(tmp_path / "run")
    assert [row["step"] for row in logged] == [1, 2, 3, 4, 5] and logged[-1]["loss"] == 0
    again = trainer_of("p3o", tmp_path / "again", 8, kl_limit=1e-6, on_kl_limit="stop")
    again.resume(tmp_path / "run" / "checkpoints" / "checkpoint-5")  # it is over, and stays so
    assert distance(weights(run), weights(again)) == 0 and again.state.global_step == 5


def test_truncated_is_the_share_of_all_answers_and_not_of_those_that_are_chosen(tmp_path: Path) -> None:
    run = trainer_of("expert_iteration", tmp_path, 1, completions=4, missing_end_penalty=1e6)
    sample = run.sample
    run.sample = lambda units, phase: [replace(u, finished=(False, True, True, True)) for u in sample(units, phase)]
    run.train()
    assert rows(tmp_path)[0]["truncated"] == 0.25 and all(unit.finished == (True,) for unit in run.experience)


def test_an_answer_that_was_cut_is_penalised_before_the_best_is_chosen(tmp_path: Path) -> None:
    rewards = iter([3.0, 2.0, 1.0] * 4)
    group = Group((1,), ((2,), (3,), (4,)))
    for method, kept in (("expert_iteration", ("b",)), ("online_dpo", ("b", "a"))):
        run = trainer_of(
            method, tmp_path / method, 1, Function(lambda *row: next(rewards)), completions=3, missing_end_penalty=5.0
        )
        name = run.train_units[0].id
        unit = Experience(name, (group,), texts=("a", "b", "c"), finished=(False, True, True))
        assert run.judge([unit])[0].texts == kept
    nash = trainer_of("nash_md", tmp_path / "nash", 1, Function(lambda *row: 0.0), missing_end_penalty=0.25)
    pair = Experience(name, (Group((1,), ((2,),)),), texts=("a", "b"), finished=(False,))
    assert nash.judge([pair])[0].rewards == (0.25,)
    nash.train()
    row = rows(tmp_path / "nash")[0]
    assert row["win"] == 0.5 and row["truncated"] > 0 and row["reward"] < 0.5  # `win` knows no penalty


def test_methods_without_a_kl_in_their_loss_refuse_its_settings_and_log_none(tmp_path: Path) -> None:
    for settings in ({"kl_coef_end": 0.1}, {"on_kl_limit": "raise"}):
        with pytest.raises(UserError, match="has no coefficient of the KL"):
            trainer_of("online_dpo", tmp_path, 1, **settings)
    with pytest.raises(UserError, match="learns from probabilities, not rewards"):
        trainer_of("nash_md", tmp_path, 1, scale_rewards=True)
    run = trainer_of("expert_iteration", tmp_path, 1)
    run.train()
    assert "kl_coef" not in rows(tmp_path)[0]
    assert trainer_of("grpo", tmp_path, 1).kl_coef == 0.04  # the default of its own loss


def test_a_prompt_that_comes_twice_in_a_phase_has_the_same_answers_on_any_number_of_processes(tmp_path: Path) -> None:
    run = trainer_of("rloo", tmp_path, 1, prompts=10)  # of six: four come twice
    chosen = [run.train_units[place] for place in run.phases.step(0)]
    found = []
    for ranks in (1, 2, 3):
        sampled = {}
        for rank in range(ranks):
            places = share_of(rank, ranks, [unit.groups[0].prompt for unit in chosen])
            sampled |= dict(zip(places, run.sample([chosen[place] for place in places], 0), strict=True))
        found.append([sampled[place].texts for place in range(10)])
    assert found[0] == found[1] == found[2] and len(set(found[0])) == 10


def test_advantages_of_a_single_token_are_whitened_to_zero() -> None:
    unit = Experience("one", (Group((1,), ((2,),)),), extra={"advantages": ((3.0,),)})
    assert whitened([unit])[0].extra["advantages"] == ((0.0,),)
