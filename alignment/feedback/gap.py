"""How much better a candidate is than a reference: PIT's gap reward model, and the plain difference of two rewards.

Both have `gap`, are a Reward where the context of a row has the "reference" that its completion is compared with, and
are a Judge of any two answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.batching.groups import Group
from alignment.batching.units import joined, separator
from alignment.errors import UserError
from alignment.feedback.adapters import as_reward, label, sigmoid
from alignment.feedback.protocols import Context, Gap, Judge, Prompts, Reward
from alignment.feedback.trained import Trained, rows_by_prompt


class _Gap(Reward, Judge, Gap):
    """What follows from `gap` alone."""

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """The gap of each completion over `context[row]["reference"]`. UserError where a row has none."""
        return self.gap(prompts, completions, references_of(self, context, len(completions)))

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """sigmoid(gap(first, second) - gap(second, first)), to the bit 1 - P(second ≻ first); 0.5 for equal texts."""
        asked = [row for row, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
        low, high = ([pick(first[row], second[row]) for row in asked] for pick in (min, max))
        chosen = [prompts[row] for row in asked]
        gaps = self.gap([*chosen, *chosen], [*low, *high], [*high, *low])
        found = [0.5] * len(first)
        for row, there, back in zip(asked, gaps[: len(asked)], gaps[len(asked) :], strict=True):
            p_low = sigmoid(there - back)
            found[row] = p_low if first[row] < second[row] else 1.0 - p_low
        return found


@dataclass
class GapReward(Trained, _Gap):
    """The gap reward model that `recipe=pit_gap` saves: r(x, candidate, reference) in one forward pass."""

    kind = "gap"

    def gap(self, prompts: Prompts, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """r of each row; rows of one prompt share it. NaN where the prompt is too long."""
        between = separator(self.tokenizer)
        asked: list[tuple[list[int], Group]] = []
        for rows in rows_by_prompt(prompts):
            answers = [*(references[row] for row in rows), *(candidates[row] for row in rows)]
            group = self.encode(prompts[rows[0]], answers, len(rows))
            if group is not None:
                orders = [(place, len(rows) + place) for place in range(len(rows))]
                asked.append((rows, joined(group, between, orders)))
        found = [math.nan] * len(candidates)
        for (rows, _), scores in zip(asked, self.scores([group for _, group in asked]), strict=True):
            for row, value in zip(rows, scores[:, 0].tolist(), strict=True):
                found[row] = value
        return found


@dataclass
class RewardGap(_Gap):
    """A difference of two rewards, r(x, candidate) - r(x, reference): what the gap model is compared with."""

    of: Any

    def __post_init__(self) -> None:
        self.of = as_reward(self.of)

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """As `gap`. The reward is told the rest of the context: what others call a reference is not that answer."""
        references = references_of(self, context, len(completions))
        rest = [{key: value for key, value in row.items() if key != "reference"} for row in context or []]
        return self.gap(prompts, completions, references, rest)

    def gap(
        self, prompts: Prompts, candidates: Sequence[str], references: Sequence[str], context: Context = None
    ) -> list[float]:
        """r(candidate) - r(reference) of each row."""
        twice = None if context is None else [*context, *context]
        scores = self.of.score([*prompts, *prompts], [*candidates, *references], twice)
        half = len(candidates)
        return [new - old for new, old in zip(scores[:half], scores[half:], strict=True)]

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """sigmoid(r(first) - r(second)): the reward's own Bradley–Terry, one gap and not the two that are the same."""
        return [sigmoid(value) for value in self.gap(prompts, first, second, context)]


def references_of(owner: Any, context: Context, rows: int) -> list[str]:
    """The reference of each row. UserError where one is no text."""
    found = [None if context is None else context[row].get("reference") for row in range(rows)]
    for row, reference in enumerate(found):
        if not isinstance(reference, str):
            reason = "no context was given" if context is None else f"it is {reference!r}"
            raise UserError(
                f'{label(owner)}: row {row + 1} has no context["reference"], the answer to compare with: {reason}'
            )
    return [str(reference) for reference in found]


def as_gap(feedback: Any) -> Gap:
    """`feedback` as a gap: its own, else the difference of its rewards."""
    return feedback if isinstance(feedback, Gap) else RewardGap(feedback)
