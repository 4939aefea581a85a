"""What a token is drawn from, how it is drawn, and from which random numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TopKLogitsWarper, TopPLogitsWarper

from alignment.errors import UserError

BLOCK = 256  # tokens whose probabilities are summed in float32


@dataclass(frozen=True)
class SamplingSettings:
    """How completions are sampled.

    Raises:
        UserError: a value outside its range.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0  # draw from the likeliest tokens that hold this share of the probability
    top_k: int = 0  # … or from so many of the likeliest; 0: from all
    batch_size: int = 32  # completions decoded at once; changes memory and speed, not what is drawn

    def __post_init__(self) -> None:
        for name, good, range_ in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or more"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
        ):
            if not good:
                raise UserError(f"sampling.{name}={getattr(self, name)}: it must be {range_}")


def check_unbiased(settings: SamplingSettings, where: str = "sampling") -> None:
    """Refuse settings under which an estimator that compares rollouts with scored log-probs is biased.

    A scoring pass gives log-probs of the whole distribution at the sampling temperature, and a rollout of top-p, top-k
    or greedy decoding comes from another one: ratios, KL terms and policy gradients would be off.
    `where` is the section of settings that the message names.

    Raises:
        UserError: top_p below 1, top_k above 0, or temperature 0.
    """
    for name, neutral in (("top_p", 1.0), ("top_k", 0)):
        if getattr(settings, name) != neutral:
            raise UserError(
                f"{where}.{name}={getattr(settings, name)} draws from a part of the distribution, and scoring sees all"
                f" of it: the method's estimates would be biased\nMend: {where}.{name}={neutral:g}"
            )
    if settings.temperature == 0:
        raise UserError(
            f"{where}.temperature=0 is greedy: there is no distribution to estimate from\nMend: {where}.temperature=1"
        )


def warp(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Logits (B, V) float32 of what tokens are drawn from, for a model's: -inf where top-k or top-p leaves out.

    The order is that of `generate`: temperature, top-k, top-p. With temperature 0 it is the likeliest token alone.
    """
    logits = logits.float()
    if settings.temperature == 0:
        return torch.full_like(logits, -torch.inf).scatter_(-1, logits.argmax(-1, keepdim=True), 0.0)
    if settings.temperature != 1:
        logits = logits / settings.temperature
    ids: Any = None  # the warpers are handed the tokens so far, and look at the scores alone
    if 0 < settings.top_k < logits.shape[-1]:
        logits = TopKLogitsWarper(settings.top_k)(ids, logits)
    if settings.top_p < 1:
        logits = TopPLogitsWarper(settings.top_p)(ids, logits)
    return logits


def draw(logits: Tensor, uniform: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """One token a row by inverting the cumulative distribution at the row's own random number.

    Args:
        logits: (B, V), as the model gives them.
        uniform: (B,) float64 in [0, 1).

    Returns:
        (tokens (B,) int64, their log-probs (B,) float32) under the softmax of `warp`.
    """
    logits = warp(logits, settings)
    highest = logits.max(-1, keepdim=True).values
    # First the block that the number falls into, then the token in it. Sums over a whole vocabulary are in float64: in
    # float32 they are off by as much as a rare token weighs (torch's softmax by 4e-6 at 49,000 tokens on a CPU).
    weights = torch.nn.functional.pad((logits - highest).exp(), (0, -logits.shape[-1] % BLOCK))
    blocks = weights.unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1).double()
    block, within = _invert(sums, uniform)
    token, _ = _invert(blocks[torch.arange(len(block), device=block.device), block], within)
    tokens = block * BLOCK + token
    logps = (logits.gather(-1, tokens[:, None]) - highest)[:, 0] - sums.sum(-1).log()
    return tokens, logps.float()


def _invert(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The entry (B,) of each row of weights (B, N) that a number in [0, 1) falls on, and how far into it, in [0, 1)."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    wanted = uniform[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, wanted, right=True)  # the first sum above: its weight is not 0
    weight = weights.gather(-1, found)
    rest = (wanted - cumulative.gather(-1, found) + weight) / weight
    return found[:, 0], rest[:, 0].clamp(0, 1 - 2**-53)


def mix(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Logits (B, V) of the geometric mixture pi^(1-beta) mu^beta of two policies' next-token distributions.

    That is (1-beta) l + beta l_mu: the normalisers of l and l_mu are one number a row each, and a softmax forgets them.
    """
    return (1 - beta) * policy.float() + beta * reference.float()


def random_numbers(prompts: Sequence[tuple[int, ...]], count: int, seed: int) -> np.ndarray:
    """Uniform random numbers for one completion of each prompt, (len(prompts), count) float64 in [0, 1).

    A row depends on the seed, the prompt's ids, and how often that prompt stands before it: not on the other prompts,
    their order, or how rows are batched.
    """
    rows, before = [], Counter[tuple[int, ...]]()
    for prompt in prompts:
        bits = np.random.Philox(key=row_seed(prompt, before[prompt], seed))
        rows.append(np.random.Generator(bits).random(count))
        before[prompt] += 1
    return np.array(rows).reshape(-1, count)


def row_seed(prompt: Sequence[int], copy: int, seed: int) -> int:
    """The seed (128 bits) of the `copy`-th completion of a prompt."""
    content = np.array([seed, copy, *prompt], dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=16).digest(), "little")
