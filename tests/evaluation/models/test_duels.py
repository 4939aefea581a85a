"""Scores and duels over a file of verdicts: what is asked, kept, asked again, and counted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.evaluation.models import verdicts as module
from alignment.evaluation.models.duels import all_scores, duels
from alignment.evaluation.models.verdicts import VerdictFile
from alignment.feedback.adapters import BradleyTerry, Function
from alignment.feedback.rules import Length
from alignment.feedback.wrappers import BothOrders
from tests.evaluation.models.made import Longer, answers, judge, prompts, reward
from tests.feedback.toys import Says, Table, same

ASKED = prompts("one", "two", "three")


@dataclass
class Named(Says):
    """Looked-up scores; the table is its identity."""

    name: str = "named"

    def identity(self) -> str:
        return f"{self.name} {sorted(self.scores)}"


@dataclass
class Looked(Table):
    name: str = "looked"
    asked: list = field(default_factory=list, init=False)

    def identity(self) -> str:
        return self.name


def lines(file: VerdictFile) -> list[dict]:
    return [json.loads(line) for line in file.path.read_text().splitlines()]


def test_an_answer_is_scored_once_whoever_gave_it(tmp_path: Path) -> None:
    says = Named({"a": 1.0, "b": -2.0})
    first, second = answers("first", ["a"], ["b"], []), answers("second", ["a"], ["a"], ["c"])
    found = all_scores(VerdictFile(reward(says), ASKED, tmp_path), [first, second])
    assert found["first"] == [[1.0], [-2.0], []]
    assert found["second"][:2] == [[1.0], [1.0]] and math.isnan(found["second"][2][0])
    assert says.asked == [["a", "b", "a", "c"]]  # "a" to the prompt one was asked once
    assert VerdictFile(reward(Named({"a": 1.0, "c": 0.0})), ASKED, tmp_path).known == {}  # another reward, another file
    again = VerdictFile(reward(says, "other name"), ASKED, tmp_path)
    all_scores(again, [second, first])
    assert says.asked[1:] == [["c"]]  # no verdict is asked again, and nothing else
    assert [row["value"] for row in lines(again)] == [1.0, -2.0, 1.0, None, None]
    assert lines(again)[1]["models"] == ["first"] and lines(again)[1]["prompt"] == 1


def test_both_orders_ties_and_what_is_not_asked(tmp_path: Path) -> None:
    table = {("a", "b"): 0.9, ("b", "a"): 0.2, ("c", "d"): 0.8, ("d", "c"): 0.8, ("e", "f"): 1.0}
    looked = Looked(table)
    left = answers("left", ["a"], ["c"], ["e"], ["same"], ["x"])
    right = answers("right", ["b"], ["d"], ["f"], ["same"], [])
    asked = prompts("1", "2", "3", "4", "5")
    (duel,) = duels(VerdictFile(judge(looked), asked, tmp_path), judge(looked), [(left, right)])
    # 0.9 and 0.8 win; 0.8 and 0.2 name two winners, and tie; one order without a verdict is none; equal texts tie.
    assert duel.prompts == [0, 1, 2, 3] and duel.outcomes == [1.0, 0.5, None, 0.5]
    assert same(duel.by_prompt(5), [1.0, 0.5, math.nan, 0.5, math.nan])
    assert duel.disagree == 1 and duel.both_orders
    assert all("same" not in pair and "x" not in pair for call in looked.asked for pair in call)
    assert looked.asked[0][:2] == [("a", "b"), ("b", "a")]  # orders side by side
    assert duel.turned().outcomes == [0.0, 0.5, None, 0.5] and duel.turned().first == "right"


def test_several_answers_to_a_prompt_are_compared_in_their_places(tmp_path: Path) -> None:
    left, right = answers("left", ["aaa", "b"], ["a"], ["aa"]), answers("right", ["b", "aaa", "c"], ["b"], ["b"])
    own = judge(Longer())
    (duel,) = duels(VerdictFile(own, ASKED, tmp_path), own, [(left, right)])
    assert duel.prompts == [0, 0, 1, 2] and duel.outcomes == [1.0, 0.0, 0.5, 1.0]
    assert duel.by_prompt(3) == [0.5, 0.5, 1.0] and duel.disagree == 1  # "first" of two as long ones is a tie


def test_a_reward_as_a_judge_compares_its_scores(tmp_path: Path) -> None:
    says = Named({"a": 1.0, "b": 2.0, "c": 2.0})
    left, right = answers("left", ["a"], ["b"], ["b"]), answers("right", ["b"], ["c"], ["unknown"])
    own = judge(says)
    file = VerdictFile(own, ASKED, tmp_path)
    (duel,) = duels(file, own, [(left, right)])
    assert duel.outcomes == [0.0, 0.5, None] and not duel.both_orders and duel.disagree == 0
    calls = len(says.asked)
    assert all_scores(file, [left])["left"] == [[1.0], [2.0], [2.0]] and len(says.asked) == calls  # nothing anew
    bradley = judge(BradleyTerry(Length()), "bt")
    pair = answers("l", ["a b"], [], []), answers("r", ["a"], [], [])
    (duel,) = duels(VerdictFile(bradley, ASKED, tmp_path), bradley, [pair])
    assert duel.outcomes[0] == 1.0 and not duel.both_orders


def test_a_judge_that_asks_in_both_orders_itself_is_asked_one_at_a_time(tmp_path: Path) -> None:
    first = Looked({("a", "b"): 1.0, ("b", "a"): 1.0})  # always the first
    own = judge(BothOrders(first))
    (duel,) = duels(
        VerdictFile(own, ASKED, tmp_path), own, [(answers("l", ["a"], [], []), answers("r", ["b"], [], []))]
    )
    assert first.asked == [[("a", "b"), ("b", "a")]] and duel.outcomes == [0.5] and duel.disagree == 1


@pytest.mark.parametrize("rows", [0, 4, 5, 8])
def test_a_judge_that_goes_down_keeps_what_it_said(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 4)
    asked = prompts(*map(str, range(6)))
    left = answers("left", *([f"{'a' * (k + 1)}"] for k in range(6)))
    right = answers("right", *([f"{'b' * (6 - k)}"] for k in range(6)))
    whole = judge(Longer())
    (wanted,) = duels(VerdictFile(whole, asked, tmp_path / "whole"), whole, [(left, right)])
    down = judge(Longer(rows))
    file = VerdictFile(down, asked, tmp_path)
    (part,) = duels(file, down, [(left, right)])
    known = 4 * (rows // 4) // 2  # whole batches, two orders a prompt
    assert part.outcomes == wanted.outcomes[:known] + [None] * (6 - known)
    assert file.failure == "ConnectionError: no answer from the server" and len(file.known) == 2 * known
    up = judge(Longer())
    (again,) = duels(VerdictFile(up, asked, tmp_path), up, [(left, right)])
    assert again == wanted and len(up.feedback.asked) == 12 - 2 * known


def test_a_line_that_a_kill_has_cut_is_asked_again(tmp_path: Path) -> None:
    says = Named({"a": 1.0, "b": 2.0})
    models = [answers("one", ["a"], ["b"], ["a"])]
    file = VerdictFile(reward(says), ASKED, tmp_path)
    wanted = all_scores(file, models)
    whole = file.path.read_bytes()
    for cut in (len(whole) - 1, len(whole) - 9, whole.index(b"\n") + 3, 1):
        file.path.write_bytes(whole[:cut])
        assert all_scores(VerdictFile(reward(says), ASKED, tmp_path), models) == wanted
        assert all_scores(VerdictFile(reward(Named({"a": 1.0, "b": 2.0})), ASKED, tmp_path), models) == wanted


def test_what_it_knows_besides_is_part_of_the_question(tmp_path: Path) -> None:
    says = Named({"a": 1.0})
    models = [answers("one", ["a"])]
    one = prompts("q")
    all_scores(VerdictFile(reward(says), one, tmp_path), models)
    other = type(one)("made", one.prompts, [{"reference": "x"}])
    all_scores(VerdictFile(reward(says), other, tmp_path), models)
    assert says.asked == [["a"], ["a"]]


def test_verdicts_out_of_range_are_none(tmp_path: Path) -> None:
    own = judge(Looked({("a", "b"): 1.5, ("b", "a"): 0.0}))
    file = VerdictFile(own, ASKED, tmp_path)
    (duel,) = duels(file, own, [(answers("l", ["a"], [], []), answers("r", ["b"], [], []))])
    assert duel.outcomes == [None] and "1.5, which is not in [0, 1]" in str(file.failure)


def test_feedback_without_a_plain_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no plain form"):
        VerdictFile(judge(Function(eval("lambda prompt, answer, context: 1.0"))), ASKED, tmp_path)
