"""Win − lose: who is asked, what a tie and no verdict are, and prompts as the unit of the interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from alignment.evaluation.win_lose import outcomes, win_lose
from alignment.feedback.protocols import Context, Prompts
from alignment.feedback.rules import Length


def prompts(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


class Longer:
    """A judge: the longer answer is better, with the probability 0.9; "?" has no verdict."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        pairs = list(zip(first, second, strict=True))
        self.asked += pairs
        return [
            math.nan if "?" in a else 0.5 if len(a) == len(b) else 0.9 if len(a) > len(b) else 0.1 for a, b in pairs
        ]


NEW, OLD = ["one two three", "one", "one two", "two one", "?"], ["one two", "one two", "one two", "one two", "one"]


def test_a_judge_and_a_reward_say_who_won() -> None:
    judge = Longer()
    found = outcomes(judge, prompts(*"abcde"), NEW, OLD)
    assert found[:4] == [1.0, -1.0, 0.0, 0.0] and math.isnan(found[4])
    assert ("one two", "one two") not in judge.asked  # equal texts tie without being asked about
    assert outcomes(Length(unit="words"), prompts(*"abcd"), NEW[:4], OLD[:4]) == [1.0, -1.0, 0.0, 0.0]
    assert outcomes(judge, prompts("a"), ["x"], ["x"]) == [0.0]


def test_shares_by_hand() -> None:
    found = win_lose([1.0, 1.0, -1.0, 0.0, math.nan], prompts(*"abcde"))
    assert (found.win, found.lose, found.difference) == (0.5, 0.25, 0.25)
    assert (found.answers, found.no_verdict) == (4, 1)
    assert found.low < 0.25 < found.high


def test_answers_to_one_prompt_are_one_unit() -> None:
    few = win_lose([1.0, 1.0, -1.0, -1.0] * 2, prompts(*"aabb" * 2))
    assert (few.win, few.lose, few.difference, few.answers) == (0.5, 0.5, 0.0, 8)
    assert few.low == -1.0 and few.high == 1.0  # two prompts, that say the opposite
    many = win_lose([1.0, 1.0, -1.0, -1.0] * 2, prompts(*"abcdefgh"))
    assert -1.0 < many.low < many.high < 1.0


def test_nothing_to_say() -> None:
    none = win_lose([math.nan], prompts("a"))
    assert math.isnan(none.difference) and (none.answers, none.no_verdict) == (0, 1)
    one = win_lose([1.0], prompts("a"))
    assert one.difference == 1.0 and math.isnan(one.low)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError):
        outcomes(Longer(), prompts("a"), ["x"], [])
