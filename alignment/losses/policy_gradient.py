"""Losses on sampled completions: P3O, Nash-MD, and the policy gradients that they are measured against.

Every loss reads log-probs of completions that an earlier policy sampled (`old`; on-policy it is the policy itself), at
the sampling temperature. What is a weight and not a path of the gradient is detached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.losses.record import LossOutput

LARGEST_LOG_RATIO = 80.0  # nats of a completion; its exponential is still finite in float32


@dataclass(frozen=True)
class Samples:
    """K completions of each of B prompts. N tokens in all, in the order of prompts, completions, tokens."""

    tokens: Tensor  # (N,) log pi_theta of each token: carries the gradient
    old_tokens: Tensor  # (N,) under the policy that sampled it
    reference_tokens: Tensor  # (N,) under the reference
    owners: Tensor  # (N,) int64: which of the B * K completions a token belongs to, ascending
    rewards: Tensor  # (B, K)

    @property
    def shape(self) -> torch.Size:
        return self.rewards.shape

    def sums(self, tokens: Tensor) -> Tensor:
        """(B, K): values of tokens (N,) summed over each completion."""
        return tokens.new_zeros(self.rewards.numel()).index_add(0, self.owners, tokens).view(self.shape)

    @property
    def policy(self) -> Tensor:
        """(B, K) log pi_theta(y | x)."""
        return self.sums(self.tokens)

    @property
    def ratio_to_reference(self) -> Tensor:
        """(B, K) log pi_theta(y | x) - log pi_ref(y | x), without gradient."""
        return self.sums((self.tokens - self.reference_tokens).detach())

    @property
    def ratio_to_old(self) -> Tensor:
        """(B, K) rho = pi_theta(y | x) / pi_old(y | x), at most e^80: an infinite one has no gradient but NaN."""
        return self.sums(self.tokens - self.old_tokens).clamp(max=LARGEST_LOG_RATIO).exp()

    @property
    def lengths(self) -> Tensor:
        """(B, K) tokens."""
        return self.sums(torch.ones_like(self.old_tokens))


def p3o(
    samples: Samples,
    clipping: Literal["separate", "joint"] = "joint",
    epsilon: float = 0.2,
    ratio_limit: float = 10.0,
    kl_coef: float = 0.05,
) -> LossOutput:
    """Pairwise proximal policy optimisation (Wu et al., 2310.00212, sec. 4.2) on two completions a prompt.

    The KL to the reference is inside the pair's reward (eq. 2), under the current policy and without gradient:
    q = (r_1 - kl_coef lr_1) - (r_2 - kl_coef lr_2), lr = log pi_theta / pi_ref. So an offset of both rewards changes
    nothing, not a bit where the rewards with it are exact. On-policy both kinds have the gradient
    -q / 2 (grad log pi(y_1) - grad log pi(y_2)).

    Args:
        clipping: `separate` (V1) clips each ratio and weighs it by the other one; its value is 0 until it clips.
            `joint` (V2) clips the pair's log-odds around the old ones.
        epsilon: half-width of the clip; of the ratio, or of the log-odds.
        ratio_limit: c; what a detached ratio may weigh is kept in [1/c, c].
    """
    if samples.shape[1] != 2:
        raise ValueError(f"P3O compares two completions of a prompt, not {samples.shape[1]}")
    (first, second), (ratio, other) = samples.rewards.unbind(1), samples.ratio_to_reference.unbind(1)
    q, rho = (first - second) - kl_coef * (ratio - other), samples.ratio_to_old  # rewards first: the offset is gone
    if clipping == "separate":
        weight = rho.detach().clamp(1 / ratio_limit, ratio_limit).flip(1)
        signed = torch.stack([q, -q], 1) * weight
        clipped = rho.clamp(1 - epsilon, 1 + epsilon)
        values = torch.maximum(-signed * rho, -signed * clipped).mean(1)
        outside = (-signed * rho < -signed * clipped).float().mean(1)
    else:
        weight = rho.detach().prod(1).clamp(1 / ratio_limit, ratio_limit)
        odds = samples.policy[:, 0] - samples.policy[:, 1]
        old = samples.sums(samples.old_tokens)
        old_odds = old[:, 0] - old[:, 1]
        clipped = torch.minimum(torch.maximum(odds, old_odds - epsilon), old_odds + epsilon)
        values = torch.maximum(-q * weight * odds, -q * weight * clipped) / 2
        outside = (-q * weight * odds < -q * weight * clipped).float()
    return LossOutput(values, {**_metrics(samples), "pair_reward": q.abs(), "clipped": outside})


def nash_md(
    samples: Samples, win: Tensor, tau: float = 0.008, kl: Literal["sequence", "token"] = "sequence"
) -> LossOutput:
    """Nash-MD-PG (Munos et al., 2312.00886, eq. 13): the gradient of P(y > y') - tau KL to the reference.

    Token n of y is weighed by P(y > y') - 1/2 - tau sum_{m >= n} log pi(y_m) / mu(y_m).

    Args:
        samples: K = 1: the policy's own completions y.
        win: (B,) P(y > y'), y' from the opponent.
        tau: of the KL. Not the mixture's beta, which is the opponent's.
        kl: `sequence` is the equation. `token` gives a token its own log-ratio alone: less variance, and biased, since
            what a token does to the KL of later ones is left out.
    """
    log_ratio = (samples.tokens - samples.reference_tokens).detach()
    if kl == "sequence":
        log_ratio = reward_to_go(log_ratio, samples.owners)
    weight = (win - 0.5)[samples.owners] - tau * log_ratio
    values = -samples.sums(weight * samples.tokens)[:, 0]
    return LossOutput(values, {**_metrics(samples), "win": win})


def rloo(samples: Samples, kl_coef: float = 0.05, epsilon: float | None = None) -> LossOutput:
    """REINFORCE leave-one-out (Ahmadian et al., 2402.14740, eq. 6), the KL inside the reward.

    Each completion's baseline is the mean of the others; the loss is the mean over completions of -A rho. With two
    completions its on-policy gradient is P3O's.

    Args:
        epsilon: clips rho as PPO does; None leaves it unclipped.
    """
    rewards = samples.rewards - kl_coef * samples.ratio_to_reference
    count = samples.shape[1]
    advantage = (rewards - rewards.mean(1, keepdim=True)) * count / (count - 1)
    values, outside = clipped_surrogate(samples.ratio_to_old, advantage, epsilon)
    return LossOutput(values.mean(1), {**_metrics(samples), "clipped": outside.mean(1)})


def reinforce(samples: Samples, baseline: Tensor, kl_coef: float = 0.05) -> LossOutput:
    """REINFORCE (Williams, 1992) with the KL inside the reward and a `baseline` () of the step."""
    advantage = samples.rewards - kl_coef * samples.ratio_to_reference - baseline
    values, _ = clipped_surrogate(samples.ratio_to_old, advantage, None)
    return LossOutput(values.mean(1), _metrics(samples))


def grpo(samples: Samples, kl_coef: float = 0.04, epsilon: float = 0.2, scale: bool = True) -> LossOutput:
    """Group-relative policy optimisation (Shao et al., 2402.03300, eq. 3), a mean over each completion's tokens.

    A = (r - mean of the group) / its standard deviation; token ratios are clipped; the KL is a loss of its own, by the
    estimator exp(-lr) + lr - 1, lr = log pi_theta / pi_ref of a token.

    Args:
        scale: divide by the standard deviation; without, a prompt's weight does not depend on how alike its rewards are
            (Dr. GRPO, 2503.20783).
    """
    centred = samples.rewards - samples.rewards.mean(1, keepdim=True)
    if scale:
        centred = centred / (samples.rewards.std(1, keepdim=True) + 1e-4)
    ratio = (samples.tokens - samples.old_tokens).exp()
    surrogate, outside = clipped_surrogate(ratio, centred.flatten()[samples.owners], epsilon)
    log_ratio = samples.tokens - samples.reference_tokens
    kl = torch.exp(-log_ratio) + log_ratio - 1
    values = samples.sums(surrogate + kl_coef * kl) / samples.lengths
    share = samples.sums(outside) / samples.lengths
    return LossOutput(values.mean(1), {**_metrics(samples), "clipped": share.mean(1)})


def ppo(
    samples: Samples,
    advantages: Tensor,
    returns: Tensor,
    values: Tensor,
    old_values: Tensor,
    epsilon: float = 0.2,
    value_epsilon: float = 0.2,
    value_coef: float = 1.0,
) -> LossOutput:
    """Proximal policy optimisation (Schulman et al., 1707.06347, eq. 7 and 9), token by token.

    Args:
        advantages, returns, old_values: (N,) of each token, from `advantages_and_returns`; without gradient.
        values: (N,) the value head's now, with gradient.
        value_epsilon: how far a value may move from its old one before its loss is flat.
    """
    ratio = (samples.tokens - samples.old_tokens).exp()
    surrogate, outside = clipped_surrogate(ratio, advantages, epsilon)
    near = torch.minimum(torch.maximum(values, old_values - value_epsilon), old_values + value_epsilon)
    value_loss = 0.5 * torch.maximum((values - returns).square(), (near - returns).square())
    per_token = samples.sums(surrogate + value_coef * value_loss) / samples.lengths
    metrics = {"clipped": samples.sums(outside), "value_loss": samples.sums(value_loss.detach())}
    shares = {name: (total / samples.lengths).mean(1) for name, total in metrics.items()}
    return LossOutput(per_token.mean(1), {**_metrics(samples), **shares})


def clipped_surrogate(ratio: Tensor, advantage: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor]:
    """(-min(rho A, clip(rho, 1 ± epsilon) A), 1 where the clip decides and no gradient flows)."""
    plain = -ratio * advantage
    if epsilon is None:
        return plain, torch.zeros_like(plain)
    held = -ratio.clamp(1 - epsilon, 1 + epsilon) * advantage
    return torch.maximum(plain, held), (held > plain).float()


def reward_to_go(values: Tensor, owners: Tensor) -> Tensor:
    """(N,): the sum of `values` (N,) from each token to the end of its completion."""
    return discounted_to_go(values, owners, 1.0)


def discounted_to_go(values: Tensor, owners: Tensor, discount: float) -> Tensor:
    """(N,): sum_{m >= n} discount^(m - n) values_m over the completion of token n."""
    padded, place = _rows(values, owners)
    total = torch.zeros_like(padded[:, 0])
    found = torch.empty_like(padded)
    for at in range(padded.shape[1] - 1, -1, -1):
        total = padded[:, at] + discount * total
        found[:, at] = total
    return found[owners, place]


def advantages_and_returns(
    rewards: Tensor, values: Tensor, owners: Tensor, discount: float = 1.0, smoothing: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantages (Schulman et al., 1506.02438, eq. 16) and returns, (N,) each.

    Args:
        rewards: (N,) of each token; the score of a completion is on its last one.
        values: (N,) V of the state in which each token is chosen.
        smoothing: lambda.
    """
    padded, place = _rows(values, owners)
    following = F.pad(padded[:, 1:], (0, 1))[owners, place]  # 0 behind the last token: the completion ends there
    errors = rewards + discount * following - values
    advantages = discounted_to_go(errors, owners, discount * smoothing)
    return advantages, advantages + values


def _rows(values: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N,) as rows (completions, longest), zeros behind their ends, and each token's place (N,) in its row."""
    lengths = torch.bincount(owners)
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(len(owners), device=owners.device) - starts[owners]
    padded = values.new_zeros(len(lengths), int(lengths.max()))
    return padded.index_put((owners, place), values), place


def _metrics(samples: Samples) -> dict[str, Tensor]:
    """What every method reports of its samples: (B,) means over a prompt's completions."""
    rho = samples.ratio_to_old.detach()
    return {
        "reward": samples.rewards.mean(1),
        "kl": samples.ratio_to_reference.mean(1),
        "ratio": rho.mean(1),
        "length": samples.lengths.mean(1),
    }
