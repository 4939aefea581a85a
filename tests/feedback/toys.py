"""Small feedback objects whose word can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from alignment.data.example import Judgment
from alignment.feedback.protocols import Context, Critic, Judge, Prompts, Reward

PROMPT = [{"role": "user", "content": "Which?"}]


@dataclass
class Table(Judge):
    """A judge that looks the verdict up: (first, second) -> P, NaN where it is not listed. Keeps what it was asked."""

    verdicts: dict[tuple[str, str], float]
    asked: list[list[tuple[str, str]]] = field(default_factory=list, init=False)

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        pairs = list(zip(first, second, strict=True))
        assert len(prompts) == len(pairs) and (context is None or len(context) == len(pairs))
        self.asked.append(pairs)
        return [self.verdicts.get(pair, math.nan) for pair in pairs]


@dataclass
class Says(Reward):
    """A reward that looks the score up, NaN where it is not listed. Keeps what it was asked."""

    scores: dict[str, float]
    asked: list[list[str]] = field(default_factory=list, init=False)

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        assert len(prompts) == len(completions) and (context is None or len(context) == len(completions))
        self.asked.append(list(completions))
        return [self.scores.get(text, math.nan) for text in completions]


@dataclass
class Writes(Critic):
    """A critic that is satisfied by texts that say please, and says nothing of an empty one."""

    asked: list[list[str]] = field(default_factory=list, init=False)

    def review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]:
        self.asked.append(list(completions))
        return [Judgment(f"on {t}", "please" in t, "writes") if t else Judgment() for t in completions]


def prefer(judge: Judge, *pairs: tuple[str, str]) -> list[float]:
    """The verdicts on pairs of texts under one prompt."""
    return judge.prefer([PROMPT] * len(pairs), [a for a, _ in pairs], [b for _, b in pairs])


def score(reward: Reward, *texts: str) -> list[float]:
    """The scores of texts under one prompt."""
    return reward.score([PROMPT] * len(texts), list(texts))


def same(found: Sequence[float], wanted: Sequence[float], within: float = 1e-12) -> bool:
    """Equal numbers, NaN beside NaN."""
    return len(found) == len(wanted) and all(
        (math.isnan(a) and math.isnan(b)) or abs(a - b) <= within for a, b in zip(found, wanted, strict=True)
    )
