"""A sampler whose answers a function writes, with the built-in model's tokenizer: no model runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from alignment.config import ModelConfig
from alignment.models.loading import load_tokenizer
from alignment.rollouts.sampler import Rollout
from alignment.rollouts.sampling import SamplingSettings, row_seed


@cache
def tokenizer() -> Any:
    return load_tokenizer(ModelConfig(path="tiny"))


class ScriptedSampler:
    """Answers each prompt with `reply(the prompt's text, a random number of the row)`; notes what it was asked."""

    def __init__(self, reply: Callable[[str, int], str], temperature: float = 1.0, max_new_tokens: int = 64) -> None:
        self.reply, self.settings = reply, SamplingSettings(max_new_tokens, temperature)
        self.tokenizer = tokenizer()
        self.asked: list[str] = []

    def sample(self, prompts: Sequence[Sequence[int]], k: int = 1, seed: int = 0) -> list[Rollout]:
        seen: dict[tuple[int, ...], int] = {}
        found = []
        for prompt in [tuple(prompt) for prompt in prompts for _ in range(k)]:
            copy = seen[prompt] = seen.get(prompt, -1) + 1
            text = self.tokenizer.decode(prompt, skip_special_tokens=True)
            self.asked.append(text)
            answer = self.reply(text, row_seed(prompt, copy, seed))
            ids = (*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id)
            found.append(Rollout(prompt, ids, (0.0,) * len(ids), True, answer.strip()))
        return found

    def update(self, policy: Any) -> None:
        """Nothing."""
