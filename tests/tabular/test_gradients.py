"""Exact policy gradients over few sequences: against finite differences, against each other, against sampling."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from alignment.tabular.games import Game, bradley_terry, mix
from alignment.tabular.gradients import (
    both,
    difference,
    dpo,
    kl_gradient,
    nash_md_pg,
    p3o_q,
    p3o_v1,
    p3o_v2,
    pairwise_policy_gradient,
    policy_gradient,
    ppo,
    rloo,
    sample_pairs,
    token_kl,
)
from alignment.tabular.sequences import END, Policy, Sequences
from alignment.tabular.solutions import equilibrium, reward_optimum

SEQUENCES = Sequences(vocabulary=3, length=2)
rng = np.random.default_rng(0)
REWARDS = rng.normal(size=len(SEQUENCES))
PREFERENCE = 0.5 + difference(rng.uniform(-0.2, 0.2, len(SEQUENCES)))
policy, old, reference = (Policy.random(SEQUENCES, rng, scale) for scale in (0.6, 0.6, 0.8))


def same(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, atol=1e-12)


def numeric(value: Callable[[Policy], float], at: Policy = policy) -> np.ndarray:
    """Central differences of a function of the policy."""
    found = np.zeros(at.logits.size)
    for number in range(at.logits.size):
        step = np.zeros(at.logits.size)
        step[number] = 1e-5
        up, down = (Policy(SEQUENCES, at.logits + sign * step.reshape(at.logits.shape)) for sign in (1, -1))
        found[number] = (value(up) - value(down)) / 2e-5
    return found


def test_the_sequences_by_hand() -> None:
    listed = [tuple(int(token) for token in row if token >= 0) for row in SEQUENCES.tokens]
    assert listed == [(END,), (1, END), (1, 1), (1, 2), (2, END), (2, 1), (2, 2)]
    assert SEQUENCES.contexts == 3  # nothing, 1 and 2
    assert len(Sequences(2, 3)) == 4 and len(Sequences(4, 3)) == 1 + 3 + 9 + 27


def test_a_policy_by_hand() -> None:
    uniform = Policy(SEQUENCES, np.zeros((3, 3)))
    same(np.exp(uniform.logps), np.array([1 / 3, *[1 / 9] * 6]))
    assert uniform.scores[1].reshape(3, 3).tolist() == pytest.approx(
        np.array([[-1 / 3, 2 / 3, -1 / 3], [2 / 3, -1 / 3, -1 / 3], [0, 0, 0]])  # 1 from nothing, then END behind 1
    )
    for number in (0, 4):
        np.testing.assert_allclose(policy.scores[number], numeric(lambda p, n=number: p.logps[n]), atol=1e-8)
    assert np.exp(policy.logps).sum() == pytest.approx(1)
    same(Policy.of_sequence_logps(SEQUENCES, policy.logps).logps, policy.logps)


def test_the_expected_reward_and_the_kl_have_these_gradients() -> None:
    expected = numeric(lambda p: np.exp(p.logps) @ REWARDS)
    np.testing.assert_allclose(policy_gradient(policy, REWARDS), expected, atol=1e-8)
    expected = numeric(lambda p: np.exp(p.logps) @ (p.logps - reference.logps))
    np.testing.assert_allclose(kl_gradient(policy, reference), expected, atol=1e-8)


def test_pairs_and_leave_one_out_have_the_mean_of_the_policy_gradient() -> None:
    expected = policy_gradient(policy, REWARDS)
    same(pairwise_policy_gradient(policy, REWARDS).mean(policy.scores), expected)
    same(pairwise_policy_gradient(policy, REWARDS, old).mean(policy.scores), expected)  # also off-policy
    for k in (2, 3):
        same(rloo(policy, REWARDS, k), expected)


@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
def test_on_policy_both_p3o_are_the_pairwise_gradient(kl_coef: float) -> None:
    q = p3o_q(policy, reference, REWARDS, kl_coef)
    expected = policy_gradient(policy, REWARDS) - kl_coef * kl_gradient(policy, reference)
    for method in (p3o_v1, p3o_v2):
        same(method(policy, policy, q).mean(policy.scores), expected)


@pytest.mark.parametrize("clip_range", [0.05, 0.2, 10.0])
@pytest.mark.parametrize("ratio_bound", [1.2, 10.0])
def test_p3o_off_policy_is_minus_the_gradient_of_its_loss(clip_range: float, ratio_bound: float) -> None:
    """The losses as METHODS writes them, with what carries no gradient held at `policy`, by finite differences."""
    q, drawn = p3o_q(policy, reference, REWARDS, 0.05), both(old.logps)
    rho = np.exp(policy.logps - old.logps)

    def v1(p: Policy) -> float:
        own, other = np.exp(p.logps - old.logps)[:, None], np.exp(p.logps - old.logps)[None, :]
        bounded = rho.clip(1 / ratio_bound, ratio_bound)
        low, high = 1 - clip_range, 1 + clip_range
        first = np.maximum(-q * bounded[None, :] * own, -q * bounded[None, :] * own.clip(low, high))
        second = np.maximum(q * bounded[:, None] * other, q * bounded[:, None] * other.clip(low, high))
        return -float((drawn * (first + second) / 2).sum())

    def v2(p: Policy) -> float:
        d, before = difference(p.logps), difference(old.logps)
        w = (rho[:, None] * rho[None, :]).clip(1 / ratio_bound, ratio_bound)
        clipped = d.clip(before - clip_range, before + clip_range)
        return -float((drawn * np.maximum(-q * w * d / 2, -q * w * clipped / 2)).sum())

    for method, value in ((p3o_v1, v1), (p3o_v2, v2)):
        found = method(policy, old, q, clip_range, ratio_bound).mean(policy.scores)
        np.testing.assert_allclose(found, numeric(value), atol=1e-8)


def test_an_offset_of_the_rewards_changes_ppo_and_leaves_p3o() -> None:
    shifted = REWARDS + 2.5

    def p3o(rewards: np.ndarray) -> list[np.ndarray]:
        q = p3o_q(policy, reference, rewards, 0.05)
        return [method(policy, old, q).mean(policy.scores) for method in (p3o_v1, p3o_v2)]

    for one, other in zip(p3o(REWARDS), p3o(shifted), strict=True):
        same(one, other)
        assert np.abs(one).max() > 0.01
    same(p3o_v1(policy, policy, difference(REWARDS)).mean(policy.scores), ppo(policy, policy, REWARDS))
    # On-policy an offset has mean zero; off-policy, with a value that was learned before it, the clip sees it.
    same(ppo(policy, policy, REWARDS), ppo(policy, policy, shifted))
    moved = np.abs(ppo(policy, old, shifted) - ppo(policy, old, REWARDS)).max()
    assert moved > 0.1 * np.abs(ppo(policy, old, REWARDS)).max()


def test_ppo_is_the_gradient_of_its_objective() -> None:
    def objective(p: Policy) -> float:
        rho = np.exp(p.logps - old.logps)
        return float(np.exp(old.logps) @ np.minimum(rho * REWARDS, rho.clip(0.8, 1.2) * REWARDS))

    np.testing.assert_allclose(ppo(policy, old, REWARDS), numeric(objective), atol=1e-8)


def test_p3o_without_reward_or_kl_stands_still_and_does_not_know_the_order() -> None:
    assert not p3o_v1(policy, old, difference(0 * REWARDS)).mean(policy.scores).any()
    q = p3o_q(policy, reference, REWARDS, 0.05)
    for method in (p3o_v1, p3o_v2):
        found = method(policy, old, q)
        same(found.first, found.second.T)


def test_dpo_is_the_gradient_of_its_loss_and_rests_at_the_reward_optimum() -> None:
    beta, labels = 0.3, bradley_terry(REWARDS)
    drawn = both(policy.logps)

    def likelihood(p: Policy) -> float:
        h = beta * difference(p.logps - reference.logps)
        return -float((drawn * (labels * np.logaddexp(0, -h) + (1 - labels) * np.logaddexp(0, h))).sum())

    found = dpo(policy, reference, labels, beta).mean(policy.scores)
    np.testing.assert_allclose(found, numeric(likelihood), atol=1e-8)
    assert np.abs(found).max() > 1e-3
    best = Policy.of_sequence_logps(SEQUENCES, reward_optimum(REWARDS, reference.logps, beta))
    for sampler in (None, reference, old):  # whoever draws the pairs
        same(dpo(best, reference, labels, beta, sampler).mean(best.scores), np.zeros(best.logits.size))
    # It is where expected reward less beta KL has no gradient either.
    same(policy_gradient(best, REWARDS) - beta * kl_gradient(best, reference), np.zeros(best.logits.size))


def test_nash_md_pg_of_equal_answers_is_the_kl_alone() -> None:
    equal = np.full_like(PREFERENCE, 0.5)
    found = nash_md_pg(policy, reference, old, equal, tau=0.1)
    same(found, -0.1 * kl_gradient(policy, reference))


@pytest.mark.parametrize("share", [0.0, 0.125, 0.5, 1.0])
def test_nash_md_pg_rests_where_the_game_with_that_mixture_does(share: float) -> None:
    """At the point that `equilibrium` finds another way: the Nash equilibrium for 0, the best response to mu for 1."""
    game = Game(PREFERENCE, reference.logps, np.array(0.1))
    log_star = equilibrium(game, share=share)
    star = Policy.of_sequence_logps(SEQUENCES, log_star)
    opponent = Policy.of_sequence_logps(SEQUENCES, mix(log_star, reference.logps, share))
    assert np.abs(nash_md_pg(star, reference, opponent, PREFERENCE, 0.1)).max() < 1e-9
    assert np.abs(nash_md_pg(policy, reference, opponent, PREFERENCE, 0.1)).max() > 1e-3


def test_a_mixture_of_tokens_is_not_one_of_sequences() -> None:
    same(policy.mixed(reference, 0.0).logps, policy.logps)
    same(policy.mixed(reference, 1.0).logps, reference.logps)
    half = policy.mixed(reference, 0.5)
    assert np.exp(half.logps).sum() == pytest.approx(1)
    assert np.abs(half.logps - mix(policy.logps, reference.logps, 0.5)).max() > 0.01


def test_the_kl_of_each_token_alone_is_biased() -> None:
    """The sum to the end has the exact mean, like the whole log-ratio, and less spread; each token's own has not."""
    probabilities, exact = np.exp(policy.logps), kl_gradient(policy, reference)
    means = {form: probabilities @ token_kl(policy, reference, form) for form in ("sequence", "to_go", "own")}
    same(means["sequence"], exact)
    same(means["to_go"], exact)
    missing = np.linalg.norm(means["own"] - exact) / np.linalg.norm(exact)
    assert missing > 0.2
    # What is missing, by hand: to each first token's gradient the KL of what follows it.
    behind = policy.token_logps[:, 1] - reference.token_logps[:, 1]
    same(means["own"] + (probabilities * behind) @ policy.token_scores[:, 0], exact)
    spread = {form: probabilities @ token_kl(policy, reference, form) ** 2 for form in ("sequence", "to_go")}
    assert spread["to_go"].sum() < spread["sequence"].sum()


@pytest.mark.parametrize("name", ["pairwise_policy_gradient", "p3o_v1", "p3o_v2", "dpo"])
def test_the_mean_of_sampled_pairs_is_the_exact_gradient(name: str) -> None:
    q = p3o_q(policy, reference, REWARDS, 0.05)
    found = {
        "pairwise_policy_gradient": lambda: pairwise_policy_gradient(policy, REWARDS, old),
        "p3o_v1": lambda: p3o_v1(policy, old, q),
        "p3o_v2": lambda: p3o_v2(policy, old, q),
        "dpo": lambda: dpo(policy, reference, PREFERENCE, 0.1, old),
    }[name]()
    y1, y2 = sample_pairs(np.random.default_rng(1), old.logps, 40_000)
    samples, exact = found.at(policy.scores, y1, y2), found.mean(policy.scores)
    for direction in (exact / np.linalg.norm(exact), *np.eye(len(exact))[:3]):
        along = samples @ direction
        error = along.std() / np.sqrt(len(along))
        assert abs(along.mean() - exact @ direction) < 3 * error
    assert np.linalg.norm(exact) > 10 * error  # so close that another gradient would be noticed


def test_sampled_nash_md_pg_is_the_exact_gradient_and_own_tokens_are_not() -> None:
    draw, n = np.random.default_rng(2), 200_000
    opponent = policy.mixed(reference, 0.25)
    y = draw.choice(len(SEQUENCES), n, p=np.exp(policy.logps))
    other = draw.choice(len(SEQUENCES), n, p=np.exp(opponent.logps))
    exact = nash_md_pg(policy, reference, opponent, PREFERENCE, tau=0.3)
    direction = exact / np.linalg.norm(exact)
    away = {}
    for form in ("sequence", "to_go", "own"):
        per_sequence = token_kl(policy, reference, form) @ direction
        along = (PREFERENCE[y, other] - 0.5) * (policy.scores @ direction)[y] - 0.3 * per_sequence[y]
        away[form] = abs(along.mean() - exact @ direction) / (along.std() / np.sqrt(n))
    assert away["sequence"] < 3 and away["to_go"] < 3 and away["own"] > 6


def test_none_of_it_needs_torch() -> None:
    modules = ("games", "solutions", "dynamics", "sequences", "gradients")
    code = "import sys; " + "; ".join(f"import alignment.tabular.{name}" for name in modules)
    done = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0
