"""Sample one answer a prompt, in batches; answers stay token ids and are decoded once, for reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.rollouts.sampler import PolicySampler
from alignment.rollouts.sampling import SamplingSettings


@dataclass(frozen=True)
class Answer:
    """A sampled completion: its token ids with the end token where it came to one, and its text without."""

    ids: tuple[int, ...]
    text: str
    finished: bool  # False: cut at max_new_tokens


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    accelerator: Any = None,
    after_batch: Callable[[int], None] | None = None,
) -> list[Answer]:
    """One answer to each prompt (token ids), in the prompts' order. Temperature 0 decodes greedily.

    A prompt that stands there several times is encoded once and gets different answers. The random state outside is
    neither used nor changed. `accelerator` and `after_batch` are as of `PolicySampler`.
    """
    settings = SamplingSettings(max_new_tokens, temperature, top_p, batch_size=batch_size)
    rollouts = PolicySampler(model, tokenizer, settings, accelerator, after_batch).sample(prompts, seed=seed)
    return [Answer(rollout.completion, rollout.text, rollout.finished) for rollout in rollouts]
