"""How the methods move: Nash-MD and its neighbours, step by step. Every function gives all iterates.

All move by log pi_{t+1} = (1 - eta tau) log pi_t + eta tau log mu + eta P(y > opponent) + constant, and differ in the
opponent. That is Nash-MD's own step (2312.00886, sec. 6) for the mixture pi_t^mu as opponent, and for pi_t it is mirror
descent on the regularised game.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alignment.tabular.games import Array, Game, kl, mix, normalised


def decaying(tau: Array) -> Callable[[int], Array]:
    """The step sizes of the theorem, eta_t = 2 / (tau (t + 2)); the first mixture is mu itself."""
    return lambda t: 2 / (np.asarray(tau) * (t + 2))


def constant(eta: Array | float) -> Callable[[int], Array]:
    return lambda t: np.asarray(eta)


def _step(game: Game, log_pi: Array, opponent: Array, eta: Array, tau: Array) -> Array:
    return normalised(
        (1 - eta * tau)[..., None] * log_pi
        + (eta * tau)[..., None] * game.log_mu
        + eta[..., None] * game.against(opponent)
    )


def nash_md(game: Game, steps: int, eta: Callable[[int], Array] | None = None) -> Array:
    """(steps + 1, …, K) log-probs, from pi_0 = mu: the opponent is the mixture pi_t^(1 - eta tau) mu^(eta tau)."""
    tau = np.asarray(game.tau)
    eta = eta or decaying(tau)
    path = [game.log_mu]
    for t in range(steps):
        opponent = mix(path[-1], game.log_mu, eta(t) * tau)
        path.append(_step(game, path[-1], opponent, eta(t), tau))
    return np.stack(path)


def mirror_descent(game: Game, steps: int, eta: Callable[[int], Array], regularised: bool = True) -> Array:
    """(steps + 1, …, K) log-probs, from mu, against the policy as it is (self-play), not mixed with mu.

    `regularised` False leaves out the pull to mu: plain online mirror descent on P alone, whose average, but not whose
    last policy, comes to an equilibrium. With eta = 1 / tau a regularised step is the whole best response to itself.
    """
    tau = np.asarray(game.tau) if regularised else np.zeros_like(game.tau)
    path = [game.log_mu]
    for t in range(steps):
        path.append(_step(game, path[-1], path[-1], eta(t), tau))
    return np.stack(path)


def nash_ema(game: Game, steps: int, eta: Callable[[int], Array], decay: float) -> tuple[Array, Array]:
    """Nash-EMA: the opponent has averaged parameters, theta_bar <- decay theta_bar + (1 - decay) theta, from mu.

    Parameters are log-probs here, so their average is a geometric one.

    Returns:
        iterates, and the policies of the averaged parameters: (steps + 1, …, K) log-probs each.
    """
    path, averages = [game.log_mu], [game.log_mu]
    for t in range(steps):
        path.append(_step(game, path[-1], averages[-1], eta(t), np.asarray(game.tau)))
        averages.append(normalised(decay * averages[-1] + (1 - decay) * path[-2]))
    return np.stack(path), np.stack(averages)


def last_iterate_bound(tau: Array, steps: int) -> Array:
    """(steps + 1, …) nats: the theorem's bound on KL(equilibrium, pi_T), 8 / (tau^2 (T + 1)), for T = 0, 1, …"""
    times = np.arange(steps + 1).reshape(-1, *(1,) * np.ndim(tau))
    return 8 / (np.asarray(tau) ** 2 * (times + 1))


def one_step_excess(path: Array, log_star: Array, tau: Array, eta: Callable[[int], Array]) -> Array:
    """(steps, …) nats: KL(pi*, pi_{t+1}) minus the theorem's bound (1 - eta tau) KL(pi*, pi_t) + 2 eta^2.

    `log_star` (…, K) is the equilibrium pi*, `eta` the step sizes of the path (steps + 1, …, K).
    """
    distances = kl(log_star, path)
    etas = np.stack([np.broadcast_to(eta(t), distances.shape[1:]) for t in range(len(path) - 1)])
    return distances[1:] - ((1 - etas * tau) * distances[:-1] + 2 * etas**2)


def average(path: Array) -> Array:
    """The mean policy of a path (T + 1, …, K), as log-probs (…, K)."""
    return np.log(np.exp(path).mean(0))


def settled(path: Array, within: float = 0.01) -> Array:
    """(…) bool: over the last half of the path it was never further than `within` (total variation) from its end."""
    probabilities = np.exp(path[len(path) // 2 :])
    return 0.5 * np.abs(probabilities - probabilities[-1]).sum(-1).max(0) <= within
