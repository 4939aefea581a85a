"""Losses on sampled completions: by hand, on policy, and what an offset of the reward does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.losses.policy_gradient import (
    Samples,
    advantages_and_returns,
    grpo,
    nash_md,
    p3o,
    ppo,
    reinforce,
    reward_to_go,
    rloo,
)

OWNERS = torch.tensor([0, 0, 1, 2, 3, 3])  # two prompts of two completions, of 2, 1, 1 and 2 tokens


def samples(tokens: list[float], old: list[float], reference: list[float], rewards: list[list[float]]) -> Samples:
    def vector(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return Samples(
        vector(tokens).requires_grad_(True), vector(old), vector(reference), OWNERS, torch.tensor(rewards).double()
    )


def moved() -> Samples:
    """log rho: 0.1 and 0.3; then -0.4 and 0."""
    return samples(
        [-1.0, -0.9, -1.7, -2.4, -1.0, -1.0],
        [-1.0, -1.0, -2.0, -2.0, -1.0, -1.0],
        [-1.5, -1.0, -2.0, -2.0, -0.5, -1.0],
        [[2.0, 1.0], [0.0, 3.0]],
    )


def gradient(values: Tensor, given: Samples) -> Tensor:
    return torch.autograd.grad(values.sum(), given.tokens)[0]


def test_p3o_joint_by_hand() -> None:
    given = moved()
    output = p3o(given, "joint", epsilon=0.15, ratio_limit=10.0, kl_coef=0.1)
    # log-ratios to the reference: 0.6, 0.3; -0.4, -0.5. q = 1 - 0.1 * 0.3 = 0.97; q = -3 - 0.1 * 0.1 = -3.01
    # log-odds now: -1.9 - -1.7 = -0.2, old -2 + 2 = 0: held at -0.15; now -2.4 + 2 = -0.4, old -2 + 2 = 0: -0.15
    weights = [math.exp(0.4), math.exp(-0.4)]
    first = max(-0.97 * weights[0] * -0.2, -0.97 * weights[0] * -0.15) / 2
    second = max(3.01 * weights[1] * -0.4, 3.01 * weights[1] * -0.15) / 2
    assert output.values.tolist() == pytest.approx([first, second])
    assert output.metrics["clipped"].tolist() == [0.0, 1.0]
    # Pair one goes on against its clip (the odds fell, q > 0): gradient -q w / 2 on y1 and + on y2. Pair two is held.
    half = 0.97 * weights[0] / 2
    assert gradient(output.values, given).tolist() == pytest.approx([-half, -half, half, 0, 0, 0])


def test_p3o_separate_by_hand() -> None:
    given = moved()
    output = p3o(given, "separate", epsilon=0.2, ratio_limit=1.25, kl_coef=0.0)
    rho = [[math.exp(0.1), math.exp(0.3)], [math.exp(-0.4), 1.0]]

    def side(advantage: float, ratio: float, other: float) -> float:
        weight = min(max(other, 1 / 1.25), 1.25)
        return max(-advantage * weight * ratio, -advantage * weight * min(max(ratio, 0.8), 1.2))

    expected = [
        (side(1.0, rho[0][0], rho[0][1]) + side(-1.0, rho[0][1], rho[0][0])) / 2,
        (side(-3.0, rho[1][0], rho[1][1]) + side(3.0, rho[1][1], rho[1][0])) / 2,
    ]
    assert output.values.tolist() == pytest.approx(expected)


def test_the_separate_loss_is_zero_until_it_clips() -> None:
    same = [-1.0, -0.9, -1.7, -2.4, -1.0, -1.0]
    assert p3o(samples(same, same, same, [[2.0, 1.0], [0.0, 3.0]]), "separate").values.tolist() == [0.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.floats(-50, 50), st.floats(-50, 50))
def test_an_offset_of_a_prompts_rewards_changes_nothing_in_p3o(scores: list[float], one: float, two: float) -> None:
    plain, given = moved(), moved()
    plain.rewards[:] = torch.tensor(scores).view(2, 2)
    given.rewards[:] = plain.rewards + torch.tensor([[one], [two]], dtype=torch.float64)
    for clipping in ("separate", "joint"):
        values, others = p3o(plain, clipping).values, p3o(given, clipping).values
        torch.testing.assert_close(values, others, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(gradient(values, plain), gradient(others, given), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-200, 200), min_size=4, max_size=4), st.integers(-6400, 6400))
def test_an_offset_that_floats_hold_exactly_changes_not_a_bit(scores: list[int], offset: int) -> None:
    single = [value.detach().float() for value in (moved().tokens, moved().old_tokens, moved().reference_tokens)]
    for clipping in ("separate", "joint"):
        found = []
        for added in (0, offset):  # in 1/64
            rewards = (torch.tensor(scores).view(2, 2) + added).float() / 64
            given = Samples(single[0].clone().requires_grad_(True), *single[1:], OWNERS, rewards)
            values = p3o(given, clipping).values
            found.append((values.detach(), gradient(values, given)))
        assert all(torch.equal(plain, moved_) for plain, moved_ in zip(*found, strict=True))


def test_swapping_a_pairs_answers_changes_nothing_in_p3o() -> None:
    there = samples([-1.0, -2.0, -3.0, -1.5, -2.5, -0.5], [-1.2] * 6, [-1.1] * 6, [[2.0, 1.0], [0.0, 3.0]])
    first = Samples(
        there.tokens[:2], there.old_tokens[:2], there.reference_tokens[:2], torch.tensor([0, 1]), there.rewards[:1]
    )
    second = Samples(
        first.tokens.flip(0),
        first.old_tokens.flip(0),
        first.reference_tokens.flip(0),
        first.owners,
        first.rewards.flip(1),
    )
    for clipping in ("separate", "joint"):
        torch.testing.assert_close(p3o(first, clipping).values, p3o(second, clipping).values)


def test_on_policy_p3o_both_ways_and_rloo_are_the_pairwise_policy_gradient() -> None:
    tokens = [-1.0, -0.9, -1.7, -2.4, -1.0, -1.0]
    given = samples(tokens, tokens, [-1.5, -1.0, -2.0, -2.0, -0.5, -1.0], [[2.0, 1.0], [0.0, 3.0]])
    q = [1 - 0.05 * (0.6 - 0.3), -3 - 0.05 * (-0.4 + 0.5)]
    expected = [-q[0] / 2, -q[0] / 2, q[0] / 2, -q[1] / 2, q[1] / 2, q[1] / 2]
    for values in (p3o(given, "separate").values, p3o(given, "joint").values, rloo(given, kl_coef=0.05).values):
        assert gradient(values, given).tolist() == pytest.approx(expected)


def test_nothing_to_learn_from_equal_rewards_without_kl() -> None:
    given = moved()
    given.rewards[:] = 1.0
    for loss in (p3o, rloo):
        assert gradient(loss(given, kl_coef=0.0).values, given).abs().max() == 0


def test_nash_md_gives_each_token_the_win_and_the_kl_that_follows() -> None:
    given = Samples(
        torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64, requires_grad=True),
        torch.zeros(3).double(),
        torch.tensor([-1.5, -1.0, -3.5], dtype=torch.float64),
        torch.tensor([0, 0, 1]),
        torch.zeros(2, 1),
    )
    win = torch.tensor([0.9, 0.5], dtype=torch.float64)
    # log-ratios 0.5, -1; 0.5. To go: -0.5, -1; 0.5.
    output = nash_md(given, win, tau=0.1)
    assert gradient(output.values, given).tolist() == pytest.approx([-(0.4 + 0.05), -(0.4 + 0.1), 0.05])
    output = nash_md(given, win, tau=0.1, kl="token")
    assert gradient(output.values, given).tolist() == pytest.approx([-(0.4 - 0.05), -(0.4 + 0.1), 0.05])


def test_reinforce_and_grpo_by_hand() -> None:
    tokens = [-1.0, -0.9, -1.7, -2.4, -1.0, -1.0]
    given = samples(tokens, tokens, tokens, [[2.0, 1.0], [0.0, 3.0]])
    values = reinforce(given, torch.tensor(1.5), kl_coef=0.0).values
    assert gradient(values, given).tolist() == pytest.approx([-0.25, -0.25, 0.25, 0.75, -0.75, -0.75])
    values = grpo(given, kl_coef=0.0, scale=False).values  # A = 0.5, -0.5; -1.5, 1.5; over tokens, then completions
    assert gradient(values, given).tolist() == pytest.approx([-0.125, -0.125, 0.25, 0.75, -0.375, -0.375])
    scaled = grpo(given, kl_coef=0.0).values
    spread = math.sqrt(0.5) + 1e-4
    assert gradient(scaled, given)[0].item() == pytest.approx(-0.125 / spread)


def test_grpos_kl_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    tokens = [-1.0, -0.9, -1.7, -2.4, -1.0, -1.0]
    level = [[1.0, 1.0], [1.0, 1.0]]
    assert grpo(samples(tokens, tokens, tokens, level), kl_coef=1.0).values.tolist() == [0.0, 0.0]
    away = grpo(samples(tokens, tokens, [-1.2] * 6, level), kl_coef=1.0).values
    # exp(-lr) + lr - 1 at lr = 0.2, 0.3; -0.5; -1.2; 0.2, 0.2
    k = [math.exp(-lr) + lr - 1 for lr in (0.2, 0.3, -0.5, -1.2, 0.2, 0.2)]
    assert away.tolist() == pytest.approx([((k[0] + k[1]) / 2 + k[2]) / 2, (k[3] + (k[4] + k[5]) / 2) / 2])


def test_reward_to_go_and_advantages_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert reward_to_go(values, OWNERS).tolist() == [3.0, 2.0, 3.0, 4.0, 11.0, 6.0]
    rewards = torch.tensor([0.0, 1.0, 1.0, 2.0, 0.0, 3.0])
    advantages, returns = advantages_and_returns(rewards, values, OWNERS, discount=1.0, smoothing=0.5)
    # errors: 0 + 2 - 1 = 1, 1 - 2 = -1; -2; -2; 0 + 6 - 5 = 1, 3 - 6 = -3
    assert advantages.tolist() == pytest.approx([1 - 0.5, -1.0, -2.0, -2.0, 1 - 1.5, -3.0])
    assert returns.tolist() == pytest.approx([1.5, 1.0, 1.0, 2.0, 4.5, 3.0])


def test_ppo_by_hand() -> None:
    tokens, old = [-1.0, -0.9, -1.7, -2.4, -1.0, -1.0], [-1.0, -1.0, -2.0, -2.0, -1.0, -1.0]
    given = samples(tokens, old, old, [[0.0, 0.0], [0.0, 0.0]])
    advantages = torch.tensor([1.0, 1.0, 2.0, -1.0, 0.5, 0.5]).double()
    values = torch.tensor([0.5, 0.1, 0.0, 1.0, 0.0, 0.0]).double()
    output = ppo(given, advantages, torch.zeros(6).double(), values, torch.zeros(6).double(), value_coef=1.0)
    rho = [1.0, math.exp(0.1), math.exp(0.3), math.exp(-0.4), 1.0, 1.0]
    policy = [-1.0, -rho[1], -2.4, 0.8, -0.5, -0.5]  # 0.3 and -0.4 are clipped
    value = [0.125, 0.005, 0.0, 0.5, 0.0, 0.0]  # the larger of moved and held, halved squares
    each = [p + v for p, v in zip(policy, value, strict=True)]
    expected = [((each[0] + each[1]) / 2 + each[2]) / 2, (each[3] + (each[4] + each[5]) / 2) / 2]
    assert output.values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("clipping", ["separate", "joint"])
def test_a_policy_that_ran_far_away_has_a_finite_loss_and_gradient(clipping: str) -> None:
    """Float32, where e^89 is infinite: the first completion is 200 nats likelier than before, the second 200 less."""
    tokens = torch.tensor([-1.0, -201.0], requires_grad=True)
    old, owners = torch.tensor([-201.0, -1.0]), torch.tensor([0, 1])
    for rewards in ([[1.0, 0.0]], [[0.0, 1.0]]):
        given = Samples(tokens, old, old, owners, torch.tensor(rewards))
        output = p3o(given, clipping, kl_coef=0.0)
        assert output.values.isfinite().all() and gradient(output.values, given).isfinite().all()
