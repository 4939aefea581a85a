"""Best-of-n at equal cost: how many answers are drawn, which one is picked, and what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.data.example import Message
from alignment.data.improvement_prompts import load_improvement_template
from alignment.errors import UserError
from alignment.rollouts.best_of import best_at_cost, nearest
from alignment.rollouts.improve import NO_ROOM
from alignment.rollouts.proposers import Asker, Resampling
from tests.rollouts.scripted import ScriptedSampler, tokenizer

PROMPT = [{"role": "user", "content": "Name a fruit."}]


class Longest:
    """The gap is the difference of lengths in characters; over itself 0."""

    def gap(
        self, prompts: Sequence[list[Message]], candidates: Sequence[str], references: Sequence[str]
    ) -> list[float]:
        return [math.nan if "?" in a else float(len(a) - len(b)) for a, b in zip(candidates, references, strict=True)]


def policy(replies: Sequence[str], temperature: float = 1.0) -> Resampling:
    """Gives `replies` one after the other."""
    waiting = iter(replies)
    sampler = ScriptedSampler(lambda text, number: next(waiting), temperature)
    return Resampling(Asker(sampler, tokenizer()), load_improvement_template("chat"))


def cost(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False)["input_ids"]) + 1


@pytest.mark.parametrize(
    ("costs", "budget", "count"),
    [
        ([4, 8, 12], 0, 0),  # nothing was spent
        ([4, 8, 12], 1, 1),  # something was: at least one
        ([4, 8, 12], 8, 2),
        ([4, 8, 12], 9, 2),
        ([4, 8, 12], 10, 2),  # as far from 8 as from 12
        ([4, 8, 12], 11, 3),
        ([4, 8], 100, 2),
        ([], 5, 0),
    ],
)
def test_the_count_whose_cost_is_nearest(costs: list[int], budget: int, count: int) -> None:
    assert nearest(costs, budget) == count


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 40))
def test_no_count_is_nearer(draws: list[int], budget: int) -> None:
    costs = [sum(draws[: n + 1]) for n in range(len(draws))]
    found = nearest(costs, budget)
    assert found >= 1
    assert abs(costs[found - 1] - budget) == min(abs(each - budget) for each in costs)


def test_the_best_so_far_for_each_budget() -> None:
    replies = ["A fig.", "A ripe pear.", "Plum.", "A sweet apricot."]
    spent = [cost(reply) for reply in replies]
    budgets = [spent[0], sum(spent[:3]), sum(spent)]
    (found,) = best_at_cost([PROMPT], ["A pear."], policy(replies), Longest(), [budgets])
    assert [each.proposal.candidates for each in found.rounds] == [1, 3, 4]
    assert [found.after(rounds) for rounds in range(4)] == ["A pear.", "A pear.", "A ripe pear.", "A sweet apricot."]
    assert [found.drawn(rounds) for rounds in (1, 2, 3)] == budgets
    assert [each.gap for each in found.rounds] == [-1.0, 5.0, 9.0]
    first, second = found.rounds[0].proposal, found.rounds[1].proposal
    assert second.read == 2 * first.read  # two prompts since the round before


def test_the_given_answer_stays_where_none_is_better_or_there_is_no_verdict() -> None:
    (found,) = best_at_cost([PROMPT], ["A long pear."], policy(["A fig.", "What?", "Hm"]), Longest(), [[9]])
    assert found.kept is None and found.text == "A long pear." and found.rounds[0].proposal.candidates >= 1
    (found,) = best_at_cost([PROMPT], ["A pear."], policy(["", "", "A sweet apricot."]), Longest(), [[3]])
    # Two answers without text, of one token each, come nearer to 3 tokens than all three.
    assert found.kept is None and found.rounds[0].proposal.candidates == 2 and found.drawn() == 2


def test_rows_without_a_budget_draw_nothing() -> None:
    replies = iter(["A sweet apricot."] * 9)
    sampler = ScriptedSampler(lambda text, number: next(replies))
    asker = Asker(sampler, tokenizer())
    drawn, none = best_at_cost(
        [PROMPT] * 2,
        ["A fig."] * 2,
        Resampling(asker, load_improvement_template("chat")),
        Longest(),
        [[cost("A sweet apricot.")], [0]],
    )
    assert drawn.text == "A sweet apricot." and none.text == "A fig." and none.drawn() == 0
    assert none.stopped == NO_ROOM and len(sampler.asked) == 1


def test_greedily_there_is_nothing_to_pick_from() -> None:
    with pytest.raises(UserError, match="the same answer n times"):
        best_at_cost([PROMPT], ["A fig."], policy([], temperature=0.0), Longest(), [[5]])
