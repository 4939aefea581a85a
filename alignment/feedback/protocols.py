"""The four small protocols behind which everything that says which answer is better stands.

A feedback object has one of these methods, or several. Rows are independent of each other, except where a class says
otherwise, so a caller may cut a call into pieces. Beside its method an object may have

- `parts(prompts, completions, context) -> dict[str, list[float]]`: the terms that a score is the sum of, for logging;
- `counts`, a Counter of what happened (requests, cached, no verdict by reason), read by reports;
- `close()`, called once when nothing more will be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from alignment.data.example import Judgment, Message

Prompts = Sequence[list[Message]]
# One mapping a row, what is known besides the texts: "reference" (a text, or a list of texts), or an example's meta.
Context = Sequence[Mapping[str, Any]] | None


@runtime_checkable
class Reward(Protocol):
    """Scores each completion; higher is better, NaN is "no verdict"."""

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]: ...


@runtime_checkable
class Judge(Protocol):
    """P(first ≻ second) for each pair, in [0, 1]; 0.5 is a tie, NaN is "no verdict", never a label."""

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]: ...


@runtime_checkable
class Critic(Protocol):
    """A written judgment of each completion; one with neither text nor verdict is "no verdict"."""

    def review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]: ...


@runtime_checkable
class Gap(Protocol):
    """How much better each candidate is than its reference, in one number; higher is better, NaN is "no verdict".

    A candidate equal to its reference need not get 0: compare with the gap of the reference over itself.
    """

    def gap(self, prompts: Prompts, candidates: Sequence[str], references: Sequence[str]) -> list[float]: ...
