"""A tokenizer that is enough for sampling, prompts, and the log-probs of rollouts scored anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignment.batching.groups import Group
from alignment.batching.packing import pack
from alignment.models.logps import token_logps
from alignment.rollouts.sampler import Rollout

END = 2
PROMPTS = [(5,), (7, 8, 9, 10, 11, 12), (5, 6, 7)]


class Numbers:
    """Tokens are written as their numbers."""

    eos_token_id = END

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        return " ".join(str(token) for token in ids if token != END)


def scored(model: Any, rollouts: Sequence[Rollout], temperature: float = 1.0) -> Tensor:
    """`token_logps` of all completion tokens, one after the other."""
    groups = [Group(rollout.prompt, (rollout.completion,)) for rollout in rollouts]
    with torch.no_grad():
        return token_logps(model, pack(groups, "padded"), temperature)


def sampled(rollouts: Sequence[Rollout]) -> Tensor:
    """The log-probs that sampling gave, one after the other."""
    return torch.tensor([value for rollout in rollouts for value in rollout.logps])


def next_logits(call: Callable[..., Any], ids: Sequence[int], last: int = 1) -> Tensor:
    """Logits (last, V) after each of the last ids, without a cache."""
    with torch.no_grad():
        return call(input_ids=torch.tensor([list(ids)])).logits[0, -last:].float()
