"""Preference games on finitely many answers, KL-regularised towards a reference policy; one game or a batch of them.

Arrays have any leading batch dimensions, written `…`; policies are kept as log-probs, so that nothing underflows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Game:
    """P_tau(pi > pi') = P(pi > pi') - tau KL(pi, mu) + tau KL(pi', mu), the regularised game of 2312.00886.

    preference: (…, K, K), P(row beats column) in [0, 1]; P + P^T = 1, so the diagonal is 1/2.
    log_mu: (…, K) log-probs of the reference policy.
    tau: (…) weight of the KL, > 0.

    Raises:
        ValueError: any of these does not hold.
    """

    preference: Array
    log_mu: Array
    tau: Array

    def __post_init__(self) -> None:
        p, tau = self.preference, np.asarray(self.tau)
        if not np.allclose(p + np.swapaxes(p, -1, -2), 1, atol=1e-12) or p.min() < 0 or p.max() > 1:
            raise ValueError("a preference matrix holds probabilities, and those of both orders add up to 1")
        if not np.allclose(np.exp(self.log_mu).sum(-1), 1) or not np.isfinite(self.log_mu).all():
            raise ValueError("log_mu must be log-probs, all of them finite")
        if not (tau > 0).all():
            raise ValueError("tau must be above 0")

    def against(self, log_pi: Array) -> Array:
        """(…, K): the probability that each answer beats one drawn from `log_pi` (…, K)."""
        return (self.preference @ np.exp(log_pi)[..., None])[..., 0]

    def win(self, log_pi: Array, other: Array) -> Array:
        """(…): P(pi > pi') of two policies (…, K)."""
        return (np.exp(log_pi) * self.against(other)).sum(-1)

    def respond(self, log_pi: Array) -> Array:
        """(…, K): the best response argmax_pi' P_tau(pi' > pi), which is mu exp(P(y > pi) / tau) / Z."""
        return normalised(self.log_mu + self.against(log_pi) / np.asarray(self.tau)[..., None])

    def exploitability(self, log_pi: Array) -> Array:
        """(…): what the best response wins above 1/2, max_pi' P_tau(pi' > pi) - 1/2; zero at the equilibrium alone."""
        tau = np.asarray(self.tau)
        log_z = np.logaddexp.reduce(self.log_mu + self.against(log_pi) / tau[..., None], axis=-1)
        return tau * (log_z + kl(log_pi, self.log_mu)) - 0.5


def normalised(logits: Array) -> Array:
    """Log-probs (…, K) of a softmax."""
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def kl(log_p: Array, log_q: Array) -> Array:
    """(…) nats: KL(p, q) of log-probs (…, K)."""
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def mix(log_pi: Array, log_mu: Array, share: Array | float) -> Array:
    """The geometric mixture pi^(1 - share) mu^share, normalised; `share` (…) in [0, 1] is that of mu."""
    share = np.asarray(share)[..., None]
    return normalised((1 - share) * log_pi + share * log_mu)


def random_preferences(rng: np.random.Generator, games: int, answers: int) -> Array:
    """(games, K, K): 1/2 plus an antisymmetric matrix, uniform in (-1/2, 1/2). Most have cycles."""
    above = np.triu(rng.uniform(-0.5, 0.5, (games, answers, answers)), 1)
    return 0.5 + above - np.swapaxes(above, -1, -2)


def random_game(rng: np.random.Generator, games: int, answers: int, taus: tuple[float, float] = (0.05, 1.0)) -> Game:
    """Random preferences, references uniform on the simplex, and tau log-uniform between `taus`."""
    log_mu = normalised(np.log(rng.exponential(size=(games, answers))))
    tau = np.exp(rng.uniform(np.log(taus[0]), np.log(taus[1]), games))
    return Game(random_preferences(rng, games, answers), log_mu, tau)


def bradley_terry(rewards: Array) -> Array:
    """(…, K, K): the transitive preferences sigmoid(r_row - r_column) of rewards (…, K)."""
    return sigmoid(rewards[..., :, None] - rewards[..., None, :])


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def has_condorcet_winner(preference: Array) -> Array:
    """(…) bool: whether one answer beats every other with a probability above 1/2."""
    beats = preference > 0.5
    return (beats.sum(-1) == preference.shape[-1] - 1).any(-1)
