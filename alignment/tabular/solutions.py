"""Where the methods end: the equilibrium of a game, and the policies that others find in its place."""

from __future__ import annotations

import numpy as np

from alignment.tabular.games import Array, Game, kl, mix, normalised, sigmoid


class NotSolved(ArithmeticError):
    """An iteration did not come as close as it was asked to."""


def equilibrium(game: Game, tolerance: float = 1e-10, share: float = 0.0, most: int = 200_000) -> Array:
    """(…, K) log-probs: the regularised Nash equilibrium, the only policy that is the best response to itself.

    A damped fixed point, log pi <- (1 - a) log pi + a log BR(pi), which shares no line with Nash-MD. Linearised at the
    solution its eigenvalues are 1 - a + i a v / tau with |v| <= 1/2, so a = 4 tau^2 / (4 tau^2 + 1) is the step that
    contracts most. Where the residual still stays up, a is halved.

    Args:
        tolerance: on max |pi - BR(pi)|, checked at the end.
        share: > 0 finds another point, the policy that responds best to the mixture pi^(1 - share) mu^share, which is
            where the expected gradient of Nash-MD-PG with that mixture vanishes; 1 is the best response to mu.

    Raises:
        NotSolved: the residual is above `tolerance` after `most` steps.
    """
    tau = np.asarray(game.tau)
    step = 4 * tau**2 / (4 * tau**2 + 1)
    log_pi, best = game.log_mu, np.full(tau.shape, np.inf)
    for number in range(most):
        response = game.respond(mix(log_pi, game.log_mu, share))
        residual = np.abs(np.exp(log_pi) - np.exp(response)).max(-1)
        if (residual <= tolerance).all():
            return log_pi
        if number % 2000 == 1999:
            step = np.where((residual > tolerance) & (residual > 0.5 * best), step / 2, step)
            best = residual
        moving = np.where(residual > tolerance, step, 0.0)[..., None]
        log_pi = normalised((1 - moving) * log_pi + moving * response)
    raise NotSolved(f"residual {residual.max():.1e} after {most} steps, asked for {tolerance:.0e}")


def fit_bradley_terry(preference: Array, weight: Array | None = None, tolerance: float = 1e-10) -> Array:
    """(K,) rewards with mean 0: the maximum of sum_ij w_ij P_ij log sigmoid(r_i - r_j), what a reward model learns.

    Args:
        preference: (K, K) of one game, off the diagonal strictly between 0 and 1: else the rewards are infinite.
        weight: (K, K) symmetric: how often each pair is compared; None compares all alike.

    Raises:
        NotSolved: Newton's method did not bring the gradient, relative to the weights, below `tolerance`.
    """
    w = np.ones_like(preference) if weight is None else weight
    w = w * (1 - np.eye(len(preference)))
    w = w / w.sum()
    rewards = np.zeros(len(preference))

    def loss(r: Array) -> float:
        return float((w * preference * np.logaddexp(0, r[None, :] - r[:, None])).sum())

    for _ in range(200):
        p = sigmoid(rewards[:, None] - rewards[None, :])
        gradient = (w * (preference - p)).sum(1)
        if np.abs(gradient).max() <= tolerance:
            return rewards - rewards.mean()
        curvature = w * p * (1 - p)
        direction = np.linalg.pinv(np.diag(curvature.sum(1)) - curvature, hermitian=True) @ gradient
        size = 1.0
        while size > 1e-6 and loss(rewards + size * direction) > loss(rewards) + 1e-15:
            size /= 2
        rewards = rewards + size * direction
    raise NotSolved(f"gradient {np.abs(gradient).max():.1e} of the Bradley-Terry fit, asked for {tolerance:.0e}")


def reward_optimum(rewards: Array, log_ref: Array, beta: float) -> Array:
    """(K,) log-probs of pi_ref exp(r / beta) / Z, which maximises E r - beta KL(pi, pi_ref)."""
    return normalised(log_ref + rewards / beta)


def reward_optimum_at(rewards: Array, log_ref: Array, nats: float) -> Array:
    """The optimum whose KL to the reference is `nats`, by bisection over beta; the sharpest one if none is so far."""
    low, high = np.log(1e-4), np.log(1e4)
    for _ in range(100):
        middle = (low + high) / 2
        found = reward_optimum(rewards, log_ref, float(np.exp(middle)))
        low, high = (middle, high) if kl(found, log_ref) > nats else (low, middle)
    return found
