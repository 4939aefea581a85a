"""One kind of feedback seen as another: a reward as a judge, a judge as a reward, a critic as a reward."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.protocols import Context, Critic, Judge, Prompts, Reward


@dataclass
class Function(Reward):
    """A plain function (prompt messages, completion, context mapping) -> float, as a reward."""

    of: Callable[[list[Message], str, Mapping[str, Any]], float]

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        rows = context or [{}] * len(completions)
        return [float(self.of(*row)) for row in zip(prompts, completions, rows, strict=True)]


@dataclass
class BradleyTerry(Judge):
    """A reward as a judge: P(first ≻ second) = sigmoid((r(first) - r(second)) / temperature)."""

    of: Reward
    temperature: float = 1.0  # in the reward's unit

    def __post_init__(self) -> None:
        self.of = as_reward(self.of)
        checks.number(self, "temperature", 1e-12)

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        twice = None if context is None else [*context, *context]
        scores = self.of.score([*prompts, *prompts], [*first, *second], twice)
        half = len(first)
        return [sigmoid((a - b) / self.temperature) for a, b in zip(scores[:half], scores[half:], strict=True)]


@dataclass
class MeanWin(Reward):
    """A judge as a reward: the mean probability that an answer wins against the other answers to its prompt.

    Looks at the rows of one call together: the rows of a prompt are each other's opponents. A duel without a verdict
    is left out of the mean; no verdict against any of them, or no opponent, is no verdict. The context of a duel is
    that of the answer that comes first.
    """

    of: Judge
    rows_together = True

    def __post_init__(self) -> None:
        self.of = as_judge(self.of)

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            rows[json.dumps(prompt, sort_keys=True)].append(index)
        duels = [(i, j) for group in rows.values() for at, i in enumerate(group) for j in group[at + 1 :]]
        chosen = None if context is None else [context[i] for i, _ in duels]
        found = self.of.prefer(
            [prompts[i] for i, _ in duels],
            [completions[i] for i, _ in duels],
            [completions[j] for _, j in duels],
            chosen,
        )
        wins: defaultdict[int, list[float]] = defaultdict(list)
        for (i, j), p_first in zip(duels, found, strict=True):
            wins[i].append(p_first)
            wins[j].append(1.0 - p_first)
        known = {i: [p for p in values if not math.isnan(p)] for i, values in wins.items()}
        return [sum(known[i]) / len(known[i]) if known.get(i) else math.nan for i in range(len(completions))]


@dataclass
class Satisfied(Reward):
    """A critic as a reward: 1 where it finds the answer satisfactory, 0 where not, NaN where it does not say."""

    of: Critic

    def __post_init__(self) -> None:
        if not isinstance(as_feedback(self.of), Critic):
            raise UserError(f"Satisfied: {type(self.of).__name__} writes no reviews (it has no method review)")

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        reviews = self.of.review(prompts, completions, context)
        return [math.nan if review.satisfactory is None else float(review.satisfactory) for review in reviews]


def as_feedback(thing: Any) -> Any:
    """`thing`, which must have one of the three methods."""
    if isinstance(thing, type) or not isinstance(thing, (Reward, Judge, Critic)):
        raise UserError(f"feedback: {type(thing).__name__} has none of the methods score, prefer and review")
    return thing


def as_reward(feedback: Any) -> Reward:
    """`feedback` as a reward: its own score, else its mean win probability, else whether it was satisfied."""
    if isinstance(as_feedback(feedback), Reward):
        return feedback
    return MeanWin(feedback) if isinstance(feedback, Judge) else Satisfied(feedback)


def as_judge(feedback: Any) -> Judge:
    """`feedback` as a judge: its own preference, else Bradley–Terry on its score."""
    return feedback if isinstance(as_feedback(feedback), Judge) else BradleyTerry(as_reward(feedback))


def inside(feedback: Any) -> Iterator[Any]:
    """`feedback`, and every feedback object that stands in its fields, or in theirs."""
    yield feedback
    if is_dataclass(feedback):
        for name in (field.name for field in fields(feedback)):
            value = getattr(feedback, name)
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(item, (Reward, Judge, Critic)):
                    yield from inside(item)


def counts_of(feedback: Any) -> Counter[str]:
    """What happened so far, over `feedback` and all that stands inside it."""
    total: Counter[str] = Counter()
    for part in inside(feedback):
        total.update(getattr(part, "counts", None) or {})
    return total


def close(feedback: Any) -> None:
    """Close `feedback` and all that stands inside it, where it has something to close."""
    for part in inside(feedback):
        if hasattr(part, "close"):
            part.close()


def label(feedback: Any) -> str:
    """A short name for logs: its `label`, a function's name, or the class's, spelt as the kinds are (exact_match)."""
    if isinstance(getattr(feedback, "label", None), str):
        return feedback.label
    if isinstance(feedback, Function):
        return getattr(feedback.of, "__name__", type(feedback.of).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(feedback).__name__).lower()


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow; NaN stays NaN."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x)) if x < 0 else math.nan
