"""How often answers win against others, less how often they lose, with an interval over prompts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.evaluation.statistics import paired_difference
from alignment.feedback.adapters import as_reward
from alignment.feedback.protocols import Context, Judge, Prompts


@dataclass(frozen=True)
class WinLose:
    """Shares of answers in [0, 1]; `low` and `high` bound the 95 % interval of `difference`, win − lose."""

    win: float
    lose: float
    difference: float
    low: float
    high: float
    answers: int  # with a verdict
    no_verdict: int


def outcomes(
    feedback: Any, prompts: Prompts, new: Sequence[str], old: Sequence[str], context: Context = None
) -> list[float]:
    """1 where `new` wins, -1 where it loses, 0 for a tie, NaN where there is no verdict.

    A judge is asked for its preference, a reward for both scores. Equal texts tie, and are not asked about.
    """
    rows = [row for row, (a, b) in enumerate(zip(new, old, strict=True)) if a != b]
    chosen = [prompts[row] for row in rows]
    first, second = [new[row] for row in rows], [old[row] for row in rows]
    known = None if context is None else [context[row] for row in rows]
    found = [0.0] * len(new)
    if not rows:
        return found
    if isinstance(feedback, Judge):
        ahead = [p - 0.5 for p in feedback.prefer(chosen, first, second, known)]
    else:
        twice = None if known is None else [*known, *known]
        scores = as_reward(feedback).score([*chosen, *chosen], [*first, *second], twice)
        ahead = [a - b for a, b in zip(scores[: len(rows)], scores[len(rows) :], strict=True)]
    for row, value in zip(rows, ahead, strict=True):
        found[row] = math.nan if math.isnan(value) else float(np.sign(value))
    return found


def win_lose(found: Sequence[float], prompts: Prompts, seed: int = 0) -> WinLose:
    """`outcomes` in shares. Answers to one prompt are resampled together, since they are not independent.

    Without a verdict on any, the shares are NaN; with verdicts on one prompt alone, the interval is.
    """
    rows: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, value in zip(prompts, found, strict=True):
        if not math.isnan(value):
            rows[json.dumps(prompt, sort_keys=True)].append(value)
    wins = [float(np.mean([value > 0 for value in values])) for values in rows.values()]
    losses = [float(np.mean([value < 0 for value in values])) for values in rows.values()]
    shares = paired_difference(losses, wins, seed)
    answers = sum(map(len, rows.values()))
    left = len(found) - answers
    return WinLose(shares.after, shares.before, shares.difference, shares.low, shares.high, answers, left)
