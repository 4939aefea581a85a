"""Best-of-n at equal cost: as many answers of the policy as another way to better answers drew tokens, and the best."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback.protocols import Gap
from alignment.rollouts.improve import NO_ROOM, ROUNDS, Improved, Proposal, Round
from alignment.rollouts.proposers import Resampling


def best_at_cost(
    prompts: Sequence[list[Message]],
    answers: Sequence[str],
    policy: Resampling,
    gap: Gap,
    budgets: Sequence[Sequence[int]],
    seed: int = 0,
) -> list[Improved]:
    """The best of the given answer and n answers of the policy, by their gap over the given one.

    Args:
        budgets: for each row the tokens that the other way had drawn after each of its rounds, rising. n is such that
            the tokens drawn come as near to it as whole answers can, and at least 1 where there is a budget.

    Returns:
        One a row, with a round for each budget: the best so far, and what was drawn since the round before.

    Raises:
        UserError: a policy that decodes greedily.
    """
    if policy.greedy:
        raise UserError("best-of-n with temperature=0 draws the same answer n times: a temperature above 0")
    draws = _draw(prompts, [max(budget, default=0) for budget in budgets], policy, seed)
    owners = [row for row, own in enumerate(draws) for each in own if each.text]
    texts = [each.text for own in draws for each in own if each.text]
    rows = [*range(len(prompts)), *owners]  # the given answer over itself, then each answer over it
    values = gap.gap([prompts[i] for i in rows], [*answers, *texts], [answers[i] for i in rows])
    given, rest = values[: len(prompts)], iter(values[len(prompts) :])
    gaps = [[float(next(rest)) if each.text else math.nan for each in own] for own in draws]
    return [_row(answers[row], draws[row], gaps[row], float(given[row]), budgets[row]) for row in range(len(prompts))]


def _draw(
    prompts: Sequence[list[Message]], budgets: Sequence[int], policy: Resampling, seed: int
) -> list[list[Proposal]]:
    """Answers to each prompt until its budget of tokens is used up; none where there is no room for one."""
    draws: list[list[Proposal]] = [[] for _ in prompts]
    going = [row for row, budget in enumerate(budgets) if budget > 0]
    wave = 0
    while going:
        own = random.Random(f"{seed}-{wave}").getrandbits(32)
        found = policy.propose([prompts[row] for row in going], [""] * len(going), own)
        for row, proposal in zip(going, found, strict=True):
            draws[row] += [] if proposal is None else [proposal]
        going = [row for row in going if len(draws[row]) > wave and sum(p.drawn for p in draws[row]) < budgets[row]]
        wave += 1
    return draws


def nearest(costs: Sequence[int], budget: int) -> int:
    """How many of the first draws, at least one where there is a budget, cost nearest to it; of two the smaller.

    Args:
        costs: sums of tokens over the first 1, 2, … draws, rising.
    """
    if budget <= 0 or not costs:
        return 0
    above = bisect_left(costs, budget)  # the first sum that reaches the budget
    if above == len(costs) or (above > 0 and budget - costs[above - 1] <= costs[above] - budget):
        return above
    return above + 1


def _row(
    answer: str, draws: Sequence[Proposal], gaps: Sequence[float], given: float, budgets: Sequence[int]
) -> Improved:
    costs = list(accumulate(each.drawn for each in draws))
    rounds, before = [], 0
    for budget in budgets:
        count = nearest(costs, budget)
        known = [at for at in range(count) if not math.isnan(gaps[at])]
        best = max(known, key=lambda at: gaps[at], default=None)
        picked = draws[best] if best is not None and gaps[best] > given else Proposal(answer, 0, 0)
        drawn, read = (sum(getattr(each, name) for each in draws[before:count]) for name in ("drawn", "read"))
        proposal = replace(picked, drawn=drawn, read=read, candidates=count)
        rounds.append(Round(proposal, picked.rollout is not None, None if best is None else gaps[best], given))
        before = count
    return Improved(answer, tuple(rounds), ROUNDS if draws else NO_ROOM)
