"""The three small protocols behind which everything that says which answer is better stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from alignment.data.example import Judgment, Message

Prompts = Sequence[list[Message]]


class Reward(Protocol):
    """Scores each completion; higher is better, NaN is "no verdict"."""

    def score(self, prompts: Prompts, completions: Sequence[str], context: Any = None) -> list[float]: ...


class Judge(Protocol):
    """P(first ≻ second) for each pair, in [0, 1]; NaN is "no verdict", never a label."""

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Any = None
    ) -> list[float]: ...


class Critic(Protocol):
    """A written judgment of each completion."""

    def review(self, prompts: Prompts, completions: Sequence[str], context: Any = None) -> list[Judgment]: ...
