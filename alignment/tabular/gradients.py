"""The gradients of the online methods as exact expectations over all sequences (or all pairs of them).

Every function gives the direction of ascent: the gradient of what is maximised, minus that of a loss that is minimised.
S sequences; `scores` (S, D) are grad log pi of each, `rewards` (S,), log-probs (S,); lr = log pi - log pi_ref.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from alignment.tabular.games import Array, sigmoid
from alignment.tabular.sequences import Policy


@dataclass(frozen=True)
class PairGradient:
    """A gradient E[first * grad log pi(y1) + second * grad log pi(y2)] over pairs: three (S, S) arrays, rows are y1."""

    probability: Array
    first: Array
    second: Array

    def mean(self, scores: Array) -> Array:
        """(D,): the exact expectation."""
        own = (self.probability * self.first).sum(1) + (self.probability * self.second).sum(0)
        return own @ scores

    def at(self, scores: Array, y1: Array, y2: Array) -> Array:
        """(n, D): the estimate of each of n sampled pairs (indices)."""
        return self.first[y1, y2, None] * scores[y1] + self.second[y1, y2, None] * scores[y2]


def both(logps: Array) -> Array:
    """(S, S): the probability of each pair of independent draws."""
    return np.exp(logps[:, None] + logps[None, :])


def difference(values: Array) -> Array:
    """(S, S): value of y1 minus value of y2."""
    return values[:, None] - values[None, :]


# -- rewards -----------------------------------------------------------------------------------------------------------


def policy_gradient(policy: Policy, rewards: Array) -> Array:
    """(D,): sum_y pi(y) r(y) grad log pi(y), the gradient of the expected reward."""
    return (np.exp(policy.logps) * rewards) @ policy.scores


def kl_gradient(policy: Policy, reference: Policy) -> Array:
    """(D,): the gradient of KL(pi, pi_ref), sum_y pi(y) (log pi(y) - log pi_ref(y)) grad log pi(y)."""
    return policy_gradient(policy, policy.logps - reference.logps)


def rloo(policy: Policy, rewards: Array, k: int) -> Array:
    """(D,): the mean over i of (r_i - mean of the other k - 1) grad log pi(y_i), over all S^k draws of k sequences."""
    probabilities, total = np.exp(policy.logps), np.zeros(policy.scores.shape[1])
    scores = policy.scores
    for drawn in product(range(len(rewards)), repeat=k):
        chosen = list(drawn)
        others = (rewards[chosen].sum() - rewards[chosen]) / (k - 1)
        total += probabilities[chosen].prod() * ((rewards[chosen] - others) @ scores[chosen]) / k
    return total


def pairwise_policy_gradient(policy: Policy, rewards: Array, old: Policy | None = None) -> PairGradient:
    """P3O's PPG (2310.00212): E[rho1 rho2 (r1 - r2) (grad log pi(y1) - grad log pi(y2)) / 2] over pairs of `old`."""
    old = old or policy
    ratio = both(policy.logps - old.logps)
    half = ratio * difference(rewards) / 2
    return PairGradient(both(old.logps), half, -half)


def p3o_q(policy: Policy, reference: Policy, rewards: Array, kl_coef: float) -> Array:
    """(S, S): r1 - r2 - kl_coef (lr1 - lr2), without gradient."""
    return difference(rewards - kl_coef * (policy.logps - reference.logps))


def p3o_v1(policy: Policy, old: Policy, q: Array, clip_range: float = 0.2, ratio_bound: float = 10.0) -> PairGradient:
    """P3O with separate clipping, METHODS' V1: two PPO clips, each weighted by the other answer's bounded ratio.

    mean of (L1 + L2) / 2 with L1 = max(-q w2 rho1, -q w2 clip(rho1)) and L2 = max(q w1 rho2, q w1 clip(rho2)).
    """
    ratio = np.exp(policy.logps - old.logps)
    bounded = ratio.clip(1 / ratio_bound, ratio_bound)

    def kept(advantage: Array, own: Array) -> Array:
        """Where PPO's clip lets the gradient through."""
        return ~(((advantage > 0) & (own > 1 + clip_range)) | ((advantage < 0) & (own < 1 - clip_range)))

    own, other = ratio[:, None], ratio[None, :]
    first = q * bounded[None, :] * own * kept(q, own) / 2
    second = -q * bounded[:, None] * other * kept(-q, other) / 2
    return PairGradient(both(old.logps), first, second)


def p3o_v2(policy: Policy, old: Policy, q: Array, clip_range: float = 0.2, ratio_bound: float = 10.0) -> PairGradient:
    """P3O with joint clipping, METHODS' V2: d = lr1 - lr2 stays within clip_range of where it was, in log space.

    mean of max(-q w d / 2, -q w clip(d, d_old - eps, d_old + eps) / 2), w = clip(rho1 rho2, 1 / c, c), no gradient.
    """
    moved = difference(policy.logps - old.logps)  # d - d_old
    weight = both(policy.logps - old.logps).clip(1 / ratio_bound, ratio_bound)
    kept = ~(((q > 0) & (moved > clip_range)) | ((q < 0) & (moved < -clip_range)))
    half = q * weight * kept / 2
    return PairGradient(both(old.logps), half, -half)


def ppo(policy: Policy, old: Policy, advantages: Array, clip_range: float = 0.2) -> Array:
    """(D,): PPO on whole sequences, E_old[min(rho A, clip(rho) A)], with advantages (S,), say rewards minus a value."""
    ratio = np.exp(policy.logps - old.logps)
    clipped = ((advantages > 0) & (ratio > 1 + clip_range)) | ((advantages < 0) & (ratio < 1 - clip_range))
    return (np.exp(policy.logps) * advantages * ~clipped) @ policy.scores


# -- preferences -------------------------------------------------------------------------------------------------------


def dpo(
    policy: Policy, reference: Policy, preference: Array, beta: float, sampler: Policy | None = None
) -> PairGradient:
    """DPO on pairs of `sampler` (the policy itself: online DPO), labelled by `preference` (S, S), P(y1 beats y2).

    Of -p log sigmoid(h) - (1 - p) log sigmoid(-h), h = beta (lr1 - lr2), the ascent is beta (p - sigmoid(h)) times the
    difference of the gradients; the pairs themselves carry none.
    """
    pull = beta * (preference - sigmoid(beta * difference(policy.logps - reference.logps)))
    return PairGradient(both((sampler or policy).logps), pull, -pull)


def nash_md_pg(policy: Policy, reference: Policy, opponent: Policy, preference: Array, tau: float) -> Array:
    """(D,): Nash-MD-PG (2312.00886, eq. 13), E[grad log pi(y) (P(y > y') - 1/2 - tau log pi(y)/mu(y))].

    y' is drawn from `opponent`, and `preference` (S, S) is P(row beats column); the log-ratio is of the whole sequence.
    """
    wins = preference @ np.exp(opponent.logps) - 0.5
    return policy_gradient(policy, wins - tau * (policy.logps - reference.logps))


def token_kl(policy: Policy, reference: Policy, form: str) -> Array:
    """(S, D): what one sampled sequence y contributes to the gradient of KL(pi, pi_ref).

    Args:
        form: "sequence": the whole log-ratio on every token. "to_go": on each token the sum of the log-ratios from it
            to the end; the same mean with less spread. "own": on each token its own log-ratio alone, as some trainers
            have it; the mean is another one, since no token answers for what comes behind it.
    """
    ratios = policy.token_logps - reference.token_logps
    weights = {
        "sequence": np.broadcast_to(ratios.sum(1, keepdims=True), ratios.shape),
        "to_go": ratios[:, ::-1].cumsum(1)[:, ::-1],
        "own": ratios,
    }[form]
    return np.einsum("st,std->sd", weights, policy.token_scores)


def sample_pairs(rng: np.random.Generator, logps: Array, n: int) -> Array:
    """(2, n): the indices of n pairs of sequences, drawn independently with log-probs (S,)."""
    return rng.choice(len(logps), size=(2, n), p=np.exp(logps - np.logaddexp.reduce(logps)))
