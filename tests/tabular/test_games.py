"""Preference games: hand-worked equilibria, the theorem's bounds on random games, and what the other methods find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.tabular.dynamics import (
    average,
    constant,
    decaying,
    last_iterate_bound,
    mirror_descent,
    nash_ema,
    nash_md,
    one_step_excess,
    settled,
)
from alignment.tabular.games import (
    Game,
    bradley_terry,
    has_condorcet_winner,
    kl,
    mix,
    normalised,
    random_game,
)
from alignment.tabular.solutions import (
    NotSolved,
    equilibrium,
    fit_bradley_terry,
    reward_optimum,
    reward_optimum_at,
)

ROCK_PAPER_SCISSORS = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])


def log(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities))


def one(preference: np.ndarray, mu: np.ndarray, tau: float) -> Game:
    return Game(preference, mu, np.array(tau))


def some_games(seed: int, games: int = 30) -> list[Game]:
    rng = np.random.default_rng(seed)
    return [random_game(rng, games, answers) for answers in (2, 3, 5, 8)]


def dice(*faces: tuple[int, ...]) -> np.ndarray:
    return np.array([[np.mean([(a > b) + 0.5 * (a == b) for a in one for b in two]) for two in faces] for one in faces])


def test_three_dice_of_which_each_beats_the_next() -> None:
    p = dice((2, 4, 9), (1, 6, 8), (3, 5, 7))
    assert p[0, 1] == p[1, 2] == p[2, 0] == pytest.approx(5 / 9)
    assert not has_condorcet_winner(p)
    np.testing.assert_allclose(np.exp(equilibrium(one(p, log(1 / 3, 1 / 3, 1 / 3), 0.1))), 1 / 3, atol=1e-9)


@pytest.mark.parametrize("e", [-0.2, 0.0, 0.1])
@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_a_cycle_whose_equilibrium_is_known(e: float, tau: float) -> None:
    """With a12 ~ 1/3 - e, a23 = a31 ~ 1/3 + e/2 nothing beats (1/3 + e/2, 1/3 + e/2, 1/3 - e); as mu it stays."""
    a, b = 1.2 * (1 / 3 - e), 1.2 * (1 / 3 + e / 2)
    p = 0.5 + np.array([[0, a, -b], [-a, 0, b], [b, -b, 0]]) / 2
    nash = log(1 / 3 + e / 2, 1 / 3 + e / 2, 1 / 3 - e)
    np.testing.assert_allclose(one(p, nash, tau).against(nash), 0.5, atol=1e-12)
    np.testing.assert_allclose(equilibrium(one(p, nash, tau)), nash, atol=1e-9)


def test_two_answers_by_hand() -> None:
    """pi1 / (1 - pi1) = mu1 / mu2 exp((P(1 > pi) - P(2 > pi)) / tau); the difference is 0.3 whatever pi is."""
    game = one(np.array([[0.5, 0.8], [0.2, 0.5]]), log(0.25, 0.75), 0.3)
    odds = 1 / 3 * np.exp((0.8 - 0.5) / 0.3)
    np.testing.assert_allclose(np.exp(equilibrium(game)), [odds / (1 + odds), 1 / (1 + odds)], atol=1e-9)
    assert game.win(log(1.0, 1e-300), log(1e-300, 1.0)) == pytest.approx(0.8)


def test_the_reward_optimum_under_a_constraint_is_beaten_by_another_policy() -> None:
    """Of the policies with pi1 = 2 pi2 and rewards (0, log 9, log 2), the one with more reward loses to the other."""
    rewards = np.log([1.0, 9.0, 2.0])
    mixed, third = np.array([2 / 3, 1 / 3, 0.0]), np.array([0.0, 0.0, 1.0])
    assert mixed @ rewards == pytest.approx(np.log(9) / 3) and mixed @ rewards > third @ rewards
    assert third @ bradley_terry(rewards) @ mixed == pytest.approx(50 / 99)


def test_rock_paper_scissors_goes_to_uniform() -> None:
    game = one(ROCK_PAPER_SCISSORS, log(1 / 3, 1 / 3, 1 / 3), 0.3)
    np.testing.assert_allclose(np.exp(nash_md(game, 50)[-1]), 1 / 3, atol=1e-12)  # mu is uniform: it never leaves
    uneven = one(ROCK_PAPER_SCISSORS, log(0.6, 0.3, 0.1), 0.3)
    path, star = nash_md(uneven, 1500), equilibrium(uneven)
    assert (kl(star, path) <= last_iterate_bound(uneven.tau, 1500)).all()
    assert kl(star, path[-1]) < 1e-5 < kl(star, path[0])


@pytest.mark.parametrize("seed", range(3))
def test_the_equilibrium_cannot_be_exploited(seed: int) -> None:
    for game in some_games(seed):
        star = equilibrium(game)
        np.testing.assert_allclose(np.exp(game.respond(star)), np.exp(star), atol=1e-10)
        np.testing.assert_allclose(game.exploitability(star), 0, atol=1e-10)
        assert (game.exploitability(game.log_mu) > 1e-6).all()
        assert (game.exploitability(nash_md(game, 20)[-1]) > -1e-12).all()


def test_the_steps_of_the_theorem_by_hand() -> None:
    game = some_games(0)[1]
    np.testing.assert_allclose([decaying(np.array(0.5))(t) for t in range(3)], [2, 4 / 3, 1])
    np.testing.assert_allclose(nash_md(game, 1)[1], game.respond(game.log_mu))  # the first mixture is mu itself
    np.testing.assert_allclose(last_iterate_bound(np.array(0.5), 3), [32, 16, 32 / 3, 8])


@pytest.mark.parametrize("seed", range(3))
def test_nash_md_keeps_both_bounds_at_every_step(seed: int) -> None:
    for game in some_games(seed):
        path, star = nash_md(game, 400), equilibrium(game)
        assert (kl(star, path) <= last_iterate_bound(game.tau, 400)).all()
        assert (one_step_excess(path, star, game.tau, decaying(game.tau)) <= 1e-12).all()
        step = 0.5 / game.tau  # the one-step bound holds for any step size with eta tau <= 1
        assert (one_step_excess(nash_md(game, 100, constant(step)), star, game.tau, constant(step)) <= 1e-12).all()


@given(seed=st.integers(0, 10_000), answers=st.integers(2, 6), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_a_step_of_nash_md_maximises_what_it_says(seed: int, answers: int, share: float) -> None:
    """argmax of eta P(pi > opponent) - KL(pi, opponent): no random policy has more."""
    rng = np.random.default_rng(seed)
    game = random_game(rng, 1, answers)
    eta = share / game.tau
    found = nash_md(game, 3, constant(eta))
    opponent = mix(found[-2], game.log_mu, eta * game.tau)

    def gain(policy: np.ndarray) -> np.ndarray:
        return eta * game.win(policy, opponent) - kl(policy, opponent)

    others = normalised(found[-1] + rng.normal(size=(50, 1, answers)))
    assert (gain(others) <= gain(found[-1]) + 1e-12).all()


def test_the_point_of_a_fixed_mixture_lies_between_equilibrium_and_best_response() -> None:
    for game in some_games(1, games=8)[1:]:  # of two answers every opponent leaves the same response
        np.testing.assert_allclose(equilibrium(game, share=1.0), game.respond(game.log_mu), atol=1e-8)
        star = equilibrium(game)
        far = [kl(star, equilibrium(game, share=share)).mean() for share in (0.01, 0.125, 0.5, 1.0)]
        assert far[0] < 1e-3 and far == sorted(far)


def test_an_equilibrium_that_is_not_reached_is_not_returned() -> None:
    with pytest.raises(NotSolved, match="residual"):
        equilibrium(some_games(0)[2], most=3)


def test_mirror_descent_circles_where_nash_md_arrives() -> None:
    game = one(ROCK_PAPER_SCISSORS, log(0.5, 0.3, 0.2), 0.2)
    plain = mirror_descent(game, 2000, constant(0.1), regularised=False)
    assert not settled(plain) and settled(nash_md(game, 2000))
    np.testing.assert_allclose(np.exp(average(plain)), 1 / 3, atol=0.02)  # its average does arrive, at that of P alone
    gentle = mirror_descent(game, 2000, constant(0.1))
    np.testing.assert_allclose(gentle[-1], equilibrium(game), atol=1e-8)  # small regularised steps do as well
    whole = mirror_descent(game, 2000, constant(1 / game.tau))  # best responses to itself: 1/tau is too far
    assert not settled(whole)


def test_the_averaged_opponent_is_an_average_of_parameters() -> None:
    game = some_games(2)[1]
    path, averages = nash_ema(game, 3, constant(0.3), decay=0.9)
    expected = normalised(0.9**2 * game.log_mu + 0.9 * 0.1 * path[0] + 0.1 * path[1])
    np.testing.assert_allclose(averages[2], expected, atol=1e-12)
    same, _ = nash_ema(game, 50, constant(0.3), decay=1.0)  # an opponent that never moves: best response to mu
    np.testing.assert_allclose(nash_ema(game, 4000, constant(0.3), 1.0)[0][-1], game.respond(game.log_mu), atol=1e-8)
    assert same.shape == (51, 30, 3)


def test_bradley_terry_by_hand_and_where_it_is_true() -> None:
    np.testing.assert_allclose(fit_bradley_terry(np.array([[0.5, 0.8], [0.2, 0.5]])), [np.log(2), -np.log(2)])
    rewards = np.array([1.0, -0.5, 2.0, 0.3])
    weight = np.random.default_rng(0).uniform(size=(4, 4))
    for w in (None, weight + weight.T):
        np.testing.assert_allclose(fit_bradley_terry(bradley_terry(rewards), w), rewards - rewards.mean(), atol=1e-8)
    np.testing.assert_allclose(fit_bradley_terry(dice((2, 4, 9), (1, 6, 8), (3, 5, 7))), 0, atol=1e-12)  # sees no cycle


@given(seed=st.integers(0, 10_000), answers=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_the_bradley_terry_fit_is_the_likeliest(seed: int, answers: int) -> None:
    rng = np.random.default_rng(seed)
    p = random_game(rng, 1, answers).preference[0]
    found = fit_bradley_terry(p)

    def likelihood(rewards: np.ndarray) -> float:
        return float((p * np.log(bradley_terry(rewards))).sum())

    assert all(likelihood(found + 0.3 * rng.normal(size=answers)) <= likelihood(found) + 1e-9 for _ in range(20))


def test_the_reward_optimum_at_a_distance() -> None:
    rewards, ref = np.array([1.0, 0.0, -1.0]), log(0.2, 0.3, 0.5)
    assert kl(reward_optimum_at(rewards, ref, 0.25), ref) == pytest.approx(0.25, abs=1e-9)
    np.testing.assert_allclose(np.exp(reward_optimum(rewards, ref, 1.0)), np.exp(rewards) * np.exp(ref) / 0.2 / (
        np.e + 1.5 + 2.5 / np.e
    ))  # fmt: skip
    furthest = reward_optimum_at(rewards, ref, 100.0)
    assert np.exp(furthest[0]) == pytest.approx(1)


def test_a_matrix_that_is_no_preference_is_refused() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        one(np.array([[0.5, 0.8], [0.3, 0.5]]), log(0.5, 0.5), 0.1)
    with pytest.raises(ValueError, match="tau"):
        one(ROCK_PAPER_SCISSORS, log(0.5, 0.3, 0.2), 0.0)
    with pytest.raises(ValueError, match="log_mu"):
        one(ROCK_PAPER_SCISSORS, log(0.5, 0.3, 0.3), 0.1)
