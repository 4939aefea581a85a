"""The rounds: what is kept, when a row ends, what is asked of the gap, and that rows do not see each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.rollouts.improve import (
    EMPTY,
    NO_ROOM,
    NO_VERDICT,
    ROUNDS,
    SATISFIED,
    UNCHANGED,
    WORSE,
    Improved,
    Proposal,
    improve,
)

PROMPT = [{"role": "user", "content": "Count."}]


class Script:
    """Proposes what a table says of an answer; the answer itself where the table says nothing."""

    def __init__(self, table: dict[str, Proposal | str | None], greedy: bool = False) -> None:
        self.table, self.greedy = table, greedy
        self.calls: list[tuple[list[str], int]] = []

    def propose(
        self, prompts: Sequence[list[Message]], answers: Sequence[str], seed: int, anew: bool = False
    ) -> list[Proposal | None]:
        self.calls.append((list(answers), seed))
        found = [self.table.get(answer, answer) for answer in answers]
        return [Proposal(each, drawn=len(each) + 1, read=3) if isinstance(each, str) else each for each in found]


class Numbers:
    """The gap is a difference of numbers, plus `offset`: an answer over itself is not worth 0. "?" has no verdict."""

    def __init__(self, offset: float = 0.25) -> None:
        self.offset = offset
        self.asked: list[tuple[str, str]] = []

    def gap(
        self, prompts: Sequence[list[Message]], candidates: Sequence[str], references: Sequence[str]
    ) -> list[float]:
        pairs = list(zip(candidates, references, strict=True))
        self.asked += pairs
        return [math.nan if "?" in (a, b) else int(a) - int(b) + self.offset for a, b in pairs]


def run(
    table: dict[str, Proposal | str | None], answer: str = "1", greedy: bool = False, **options: object
) -> Improved:
    options = {"rounds": 4, "gap": Numbers(), **options}
    (found,) = improve([PROMPT], [answer], Script(table, greedy), **options)  # type: ignore[arg-type]
    return found


def test_rounds_go_on_while_the_gap_rises_and_the_best_is_kept() -> None:
    found = run({"1": "5", "5": "7", "7": "2", "2": "9"})
    assert [each.text for each in found.rounds] == ["5", "7", "2"]
    assert [each.kept for each in found.rounds] == [True, True, False]
    assert [each.gap for each in found.rounds] == [4.25, 2.25, -4.75]
    assert [each.over_itself for each in found.rounds] == [0.25] * 3
    assert (found.text, found.kept, found.stopped) == ("7", 1, WORSE)
    assert [found.after(rounds) for rounds in range(5)] == ["1", "5", "7", "7", "7"]
    assert found.drawn() == 6 and found.drawn(1) == 2


def test_the_answer_over_itself_is_the_measure_and_not_zero() -> None:
    # A gap of 0.25 - 1 is above -1, so with an offset of -2 it is kept though below zero: -2 + 1 over -2.
    found = run({"1": "2"}, rounds=1, gap=Numbers(offset=-2.0))
    assert (found.text, found.rounds[0].gap, found.rounds[0].over_itself) == ("2", -1.0, -2.0)
    assert run({"2": "1"}, "2", rounds=1, gap=Numbers(offset=2.0)).text == "2"  # 1 is above zero, and below 2


def test_best_goes_on_from_the_best_and_last_from_the_last() -> None:
    table: dict[str, Proposal | str | None] = {"3": "1", "1": "4", "4": "2"}
    best = run(table, "3", rule="best")
    assert [each.text for each in best.rounds] == ["1"] * 4 and best.text == "3" and best.stopped == ROUNDS
    last = run(table, "3", rule="last", rounds=3)
    assert [each.text for each in last.rounds] == ["1", "4", "2"] and last.text == "2"
    assert [each.gap for each in last.rounds] == [-1.75, 3.25, -1.75] and all(each.kept for each in last.rounds)


def test_without_a_gap_the_last_answer_is_kept() -> None:
    found = run({"1": "5", "5": "0"}, gap=None, rounds=2)
    assert found.text == "0" and found.stopped == ROUNDS
    assert [each.gap for each in found.rounds] == [None, None]


@pytest.mark.parametrize("rule", ["stop", "best", "last"])
def test_an_answer_without_text_is_never_kept(rule: str) -> None:
    gap = Numbers()
    found = run({"1": ""}, rule=rule, gap=gap)
    assert found.text == "1" and found.kept is None and not gap.asked
    assert (found.stopped, len(found.rounds)) == ((EMPTY, 1) if rule == "stop" else (ROUNDS, 4))


def test_no_verdict_is_no_reason_to_keep() -> None:
    found = run({"1": "?"})
    assert found.text == "1" and found.stopped == NO_VERDICT and math.isnan(found.rounds[0].gap or 0.0)
    assert run({"1": "?"}, rule="last", rounds=1).text == "?"


def test_no_room_ends_a_row_and_is_no_round() -> None:
    found = run({"1": None})
    assert found.rounds == () and found.stopped == NO_ROOM and found.text == "1" and found.drawn() == 0


def test_a_satisfied_improver_ends_a_row() -> None:
    found = run({"1": "3", "3": Proposal("3", 5, 9, critique="Fine.", satisfied=True)}, rule="last")
    assert found.text == "3" and found.kept == 0 and found.stopped == SATISFIED and found.drawn() == 7


def test_greedily_the_same_again_is_not_asked_for() -> None:
    same = run({}, greedy=True)
    assert len(same.rounds) == 1 and same.stopped == UNCHANGED and same.text == "1"
    worse = run({"3": "1"}, "3", greedy=True, rule="best")
    assert len(worse.rounds) == 1 and worse.stopped == WORSE and worse.text == "3"
    assert len(run({}).rounds) == 4  # sampled, it may be another answer the next time


def test_what_the_gap_is_asked() -> None:
    gap = Numbers()
    run({"1": "5", "5": "4"}, rule="best", gap=gap, rounds=3)
    # The answer over itself once, until another is kept.
    assert gap.asked == [("5", "1"), ("1", "1"), ("4", "5"), ("5", "5"), ("4", "5")]


def test_rounds_have_seeds_of_their_own_and_ended_rows_are_not_asked() -> None:
    script = Script({"1": "5", "5": "6", "6": "7", "3": "0"})
    improve([PROMPT] * 2, ["1", "3"], script, Numbers(), rounds=3, seed=4)
    assert [answers for answers, _ in script.calls] == [["1", "3"], ["5"], ["6"]]
    seeds = [seed for _, seed in script.calls]
    assert len(set(seeds)) == 3
    again = Script({})
    improve([PROMPT], ["1"], again, Numbers(), rounds=3, seed=4)
    assert [seed for _, seed in again.calls] == seeds


NUMBERS = st.integers(0, 12).map(str)


@given(
    table=st.dictionaries(NUMBERS, st.one_of(NUMBERS, st.just("?"), st.just(""), st.none())),
    answers=st.lists(NUMBERS, min_size=1, max_size=6),
    rule=st.sampled_from(["stop", "best", "last"]),
    greedy=st.booleans(),
)
def test_rows_are_independent_and_with_stop_and_best_never_worse(
    table: dict[str, Proposal | str | None], answers: list[str], rule: str, greedy: bool
) -> None:
    script = Script(table, greedy)
    together = improve([PROMPT] * len(answers), answers, script, Numbers(), rounds=5, rule=rule)
    alone = [improve([PROMPT], [answer], script, Numbers(), rounds=5, rule=rule)[0] for answer in answers]
    assert [repr(each) for each in together] == [repr(each) for each in alone]  # NaN is not NaN
    for answer, found in zip(answers, together, strict=True):
        assert rule == "last" or int(found.text) >= int(answer)
        assert len(found.rounds) <= 5 and found.text != ""


def test_refused_rules() -> None:
    with pytest.raises(UserError, match=r"unknown rule 'lats': did you mean last\?"):
        run({}, rule="lats")
    with pytest.raises(UserError, match="rule=best needs a gap"):
        run({}, rule="best", gap=None)
