"""Losses on sampled completions against exact gradients: all sequences of a few tokens, or all draws of k, weighed.

The policy is a table of logits with a row for each prefix. autograd through the torch loss on `Samples` of all draws,
each weighed by its probability, must give what `alignment.tabular` works out in numpy without autograd.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from alignment.losses.pairwise import sigmoid
from alignment.losses.policy_gradient import (
    Samples,
    advantages_and_returns,
    grpo,
    nash_md,
    p3o,
    ppo,
    reinforce,
    rloo,
)
from alignment.losses.record import PairLogps
from alignment.rollouts.sampling import mix
from alignment.tabular import gradients as exact
from alignment.tabular.games import random_preferences
from alignment.tabular.sequences import Policy, Sequences

SEQUENCES = Sequences(vocabulary=3, length=3)  # 15 sequences of 1 to 3 tokens, 7 prefixes
rng = np.random.default_rng(0)
policy, old, reference = (Policy.random(SEQUENCES, rng, scale) for scale in (0.6, 0.6, 0.8))
near = Policy(SEQUENCES, policy.logits + 0.2 * rng.normal(size=policy.logits.shape))  # … the policy, some steps ago
REWARDS = rng.normal(size=len(SEQUENCES))
PREFERENCE = random_preferences(rng, 1, len(SEQUENCES))[0]
KL = 0.05

LOGITS = torch.tensor(policy.logits, requires_grad=True)
TOKENS, PREFIXES, REAL = (torch.tensor(each) for each in (SEQUENCES.tokens, SEQUENCES.prefixes, SEQUENCES.real))
LENGTHS = REAL.sum(1)


def token_logps(logits: Tensor, drawn: Tensor) -> Tensor:
    """(N,): the log-prob of each token of the sequences with these numbers, one behind the other."""
    return torch.log_softmax(logits, -1)[PREFIXES, TOKENS][drawn.flatten()][REAL[drawn.flatten()]]


def samples(drawn: Tensor, sampler: Policy = policy, rewards: np.ndarray = REWARDS) -> Samples:
    """The sequences `drawn` (B, K) as completions that `sampler` made."""
    owners = torch.arange(drawn.numel()).repeat_interleave(LENGTHS[drawn.flatten()])
    before, base = (token_logps(torch.tensor(each.logits), drawn) for each in (sampler, reference))
    return Samples(token_logps(LOGITS, drawn), before, base, owners, torch.tensor(rewards)[drawn])


def every(k: int) -> Tensor:
    """(S^k, k): all draws of k sequences."""
    return torch.cartesian_prod(*[torch.arange(len(SEQUENCES))] * k).view(-1, k)


def probability(drawn: Tensor, sampler: Policy = policy) -> Tensor:
    """(B,): how likely `sampler` draws each row of (B, K)."""
    return torch.tensor(sampler.logps).exp()[drawn].prod(1)


def ascent(loss: Tensor) -> np.ndarray:
    """(D,): minus the gradient of a loss ()."""
    return -torch.autograd.grad(loss, LOGITS, retain_graph=True)[0].flatten().numpy()


def expected(values: Tensor, drawn: Tensor, sampler: Policy = policy) -> np.ndarray:
    """(D,): the ascent that a loss with these values (B,) gives on average over all draws."""
    return ascent(values @ probability(drawn, sampler))


def same(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    assert np.abs(other).max() > 0.01


# -- the exact expectation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [policy, near, old], ids=["on-policy", "near", "far"])
@pytest.mark.parametrize(("clipping", "tabular"), [("separate", exact.p3o_v1), ("joint", exact.p3o_v2)])
@pytest.mark.parametrize(("epsilon", "limit"), [(0.2, 10.0), (0.05, 1.2)])
def test_p3o(sampler: Policy, clipping: str, tabular: Callable, epsilon: float, limit: float) -> None:
    pairs = every(2)
    output = p3o(samples(pairs, sampler), clipping, epsilon, limit, KL)
    q = exact.p3o_q(policy, reference, REWARDS, KL)
    same(expected(output.values, pairs, sampler), tabular(policy, sampler, q, epsilon, limit).mean(policy.scores))
    if sampler is policy:  # then it is the policy gradient of the reward less its KL
        with_kl = REWARDS - KL * (policy.logps - reference.logps)
        same(expected(output.values, pairs), exact.policy_gradient(policy, with_kl))
    else:
        assert 0.05 < output.metrics["clipped"].mean() < 0.95


@pytest.mark.parametrize("k", [2, 3])
def test_rloo(k: int) -> None:
    with_kl, drawn = REWARDS - KL * (policy.logps - reference.logps), every(k)
    same(expected(rloo(samples(drawn), KL).values, drawn), exact.rloo(policy, with_kl, k))
    # Off policy and unclipped the ratios put it right: it is the gradient at the policy still.
    found = expected(rloo(samples(drawn, old), KL).values, drawn, old)
    same(found, exact.policy_gradient(policy, with_kl))


def test_reinforce() -> None:
    """A constant as baseline changes nothing on average."""
    with_kl, drawn = REWARDS - KL * (policy.logps - reference.logps), every(1)
    for baseline in (0.0, 2.0):
        values = reinforce(samples(drawn, old), torch.tensor(baseline), KL).values
        # Off policy, too: the ratios' mean is 1 whatever the policy.
        same(expected(values, drawn, old), exact.policy_gradient(policy, with_kl))


def opponent(share: float) -> Policy:
    """The mixture that the sampler draws y' from, made of next-token logits by its own function."""
    logits = mix(LOGITS.detach(), torch.tensor(reference.logits), share).double().numpy()
    np.testing.assert_allclose(Policy(SEQUENCES, logits).logps, policy.mixed(reference, share).logps, atol=1e-5)
    return policy.mixed(reference, share)  # the same in double precision


def wins(share: float) -> Tensor:
    """(S,): how likely each sequence is preferred to one of the opponent's."""
    return torch.tensor(PREFERENCE @ np.exp(opponent(share).logps))


def nash_md_ascent(kl: str, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """What the loss gives on average, and what it should: for `token` the biased KL of each token's own log-ratio."""
    drawn, win = every(1), wins(0.25)
    found = expected(nash_md(samples(drawn), win, tau, kl).values, drawn)
    if kl == "sequence":
        return found, exact.nash_md_pg(policy, reference, opponent(0.25), PREFERENCE, tau)
    own = np.exp(policy.logps) @ exact.token_kl(policy, reference, "own")
    return found, exact.policy_gradient(policy, win.numpy() - 0.5) - tau * own


@pytest.mark.parametrize("kl", ["sequence", "token"])
@pytest.mark.parametrize("tau", [0.008, 0.3])
def test_nash_md(kl: str, tau: float) -> None:
    same(*nash_md_ascent(kl, tau))


def test_the_token_form_of_nash_md_is_another_gradient() -> None:
    whole, own = (nash_md_ascent(kl, 0.3)[0] for kl in ("sequence", "token"))
    assert np.linalg.norm(own - whole) > 0.1 * np.linalg.norm(whole)


def test_online_dpo() -> None:
    """Pairs of the policy, the better reward chosen; two equal rewards are no pair."""
    beta, pairs = 0.3, every(2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    order = torch.tensor(REWARDS)[pairs].argsort(1, descending=True)
    both = samples(pairs.gather(1, order))
    chosen, rejected = both.policy.unbind(1)
    logps = [both.sums(both.reference_tokens)[:, place] for place in (0, 1)]
    lengths = [both.lengths[:, place] for place in (0, 1)]
    output = sigmoid(PairLogps(chosen, rejected, *logps, *lengths, torch.ones(len(pairs)).double()), beta)
    better = 0.5 * (1 + np.sign(exact.difference(REWARDS)))
    same(expected(output.values, pairs), exact.dpo(policy, reference, better, beta).mean(policy.scores))


# -- samples -----------------------------------------------------------------------------------------------------------

CONFIDENCE = 0.9973  # what lies within three standard errors of a normal distribution


def surprise(loss: Callable[[Tensor], Tensor], k: int, sampler: Policy, truth: np.ndarray, n: int = 50_000) -> float:
    """How likely the mean gradient of n draws of an unbiased loss is nearer to `truth` than what was drawn, in [0, 1].

    All coordinates at once: n (mean - truth)' C^-1 (mean - truth) is chi-squared, with as many degrees of freedom as C,
    the covariance of one draw's gradient, has directions: of each row of logits one has no effect, and a clip may stop
    another.
    """
    drawn = every(k)
    values = loss(drawn)
    each = torch.autograd.grad(values, LOGITS, torch.eye(len(drawn)).double(), is_grads_batched=True)[0].flatten(1)
    weight = probability(drawn, sampler)[:, None]
    centred = each - (weight * each).sum(0)
    covariance = centred.T @ (weight * centred)
    at = np.random.default_rng(1).choice(len(drawn), n, p=weight[:, 0].numpy() / weight.sum().item())
    off = torch.tensor(ascent(loss(drawn[at]).mean()) - truth)
    squared = n * off @ torch.linalg.pinv(covariance, hermitian=True, rtol=1e-6) @ off
    directions = torch.linalg.matrix_rank(covariance, hermitian=True, rtol=1e-6)
    assert 10 < directions <= 14  # 7 rows of 3
    return torch.special.gammainc(directions / 2, squared / 2).item()


@pytest.mark.parametrize("clipping", ["separate", "joint"])
def test_sampled_p3o_is_unbiased_and_knows_who_sampled(clipping: str) -> None:
    q = exact.p3o_q(policy, reference, REWARDS, KL)
    tabular = {"separate": exact.p3o_v1, "joint": exact.p3o_v2}[clipping](policy, old, q)

    def loss(drawn: Tensor) -> Tensor:
        return p3o(samples(drawn, old), clipping, kl_coef=KL).values

    assert surprise(loss, 2, old, tabular.mean(policy.scores)) < CONFIDENCE
    # Draws of the policy itself, taken for the old one's, are noticed.
    assert surprise(loss, 2, policy, tabular.mean(policy.scores)) > CONFIDENCE


def test_sampled_rloo_is_unbiased() -> None:
    truth = exact.policy_gradient(policy, REWARDS - KL * (policy.logps - reference.logps))
    assert surprise(lambda drawn: rloo(samples(drawn), KL).values, 2, policy, truth) < CONFIDENCE


@pytest.mark.parametrize("tau", [0.1, 0.3])
def test_sampled_nash_md_is_unbiased_with_the_kl_of_the_sequence_alone(tau: float) -> None:
    win = wins(0.25)
    truth = exact.nash_md_pg(policy, reference, opponent(0.25), PREFERENCE, tau)

    def surprised(kl: str) -> float:
        return surprise(
            lambda drawn: nash_md(samples(drawn), win[drawn[:, 0]], tau, kl).values,
            1,
            policy,
            truth,
        )

    assert surprised("sequence") < CONFIDENCE < surprised("token")


# -- an offset of a prompt's rewards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1.0, -20.0])
@pytest.mark.parametrize("sampler", [policy, old], ids=["on-policy", "off-policy"])
def test_an_offset_of_the_rewards_changes_no_gradient_of_a_difference(offset: float, sampler: Policy) -> None:
    pairs = every(2)
    for loss in (
        lambda given: p3o(given, "separate", kl_coef=KL),
        lambda given: p3o(given, "joint", kl_coef=KL),
        lambda given: rloo(given, KL, epsilon=0.2),
        lambda given: grpo(given, KL),
    ):
        plain, moved = (
            expected(loss(samples(pairs, sampler, rewards)).values, pairs, sampler)
            for rewards in (REWARDS, REWARDS + offset)
        )
        same(moved, plain)


def ppo_ascent(sampler: Policy, offset: float, learned: float) -> np.ndarray:
    """PPO's with rewards moved by `offset`, and as values the rewards to come under `sampler`, moved by `learned`."""
    drawn = every(1)
    given = samples(drawn, sampler, REWARDS + offset)
    weight = probability(drawn, sampler)
    visits, worth = torch.zeros(2, SEQUENCES.contexts).double()
    for s, prefixes in enumerate(SEQUENCES.prefixes):
        for prefix in prefixes[prefixes >= 0]:
            visits[prefix] += weight[s]
            worth[prefix] += weight[s] * REWARDS[s]
    values = (worth / visits)[PREFIXES[REAL]] + learned
    rewards = -KL * (given.old_tokens - given.reference_tokens)
    rewards[LENGTHS.cumsum(0) - 1] += given.rewards[:, 0]
    advantages, returns = advantages_and_returns(rewards, values, given.owners)
    return expected(ppo(given, advantages, returns, values, values).values, drawn, sampler)


@pytest.mark.parametrize("sampler", [policy, old], ids=["on-policy", "off-policy"])
def test_it_changes_ppo_until_the_value_has_learned_it(sampler: Policy) -> None:
    before = ppo_ascent(sampler, 0.0, 0.0)
    assert np.linalg.norm(ppo_ascent(sampler, 1.0, 0.0) - before) > 0.1 * np.linalg.norm(before)
    same(ppo_ascent(sampler, 1.0, 1.0), before)
