"""A reward with an offset that depends on the prompt alone: what preferences cannot tell, and PPO can."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.feedback.protocols import Context, Prompts, Reward
from alignment.feedback.rules import PlainWords


@dataclass
class Offset(Reward):
    """Plain words, plus a number that depends on the prompt alone, in [0, scale): it says nothing about the answer.

    Both are multiples of 1/64, so that their sums and differences are exact: what then differs is the method's doing.
    """

    scale: float

    def of(self, prompt: Any) -> float:
        """The prompt's offset."""
        digest = hashlib.blake2b(json.dumps(prompt, sort_keys=True).encode(), digest_size=4).digest()
        return in_64ths(self.scale * int.from_bytes(digest, "little") / 2**32)

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """One score for each completion."""
        plain = PlainWords().score(prompts, completions)
        return [in_64ths(score) + self.of(prompt) for score, prompt in zip(plain, prompts, strict=True)]


def in_64ths(value: float) -> float:
    """The nearest multiple of 1/64; NaN stays."""
    return value if math.isnan(value) else round(64 * value) / 64
