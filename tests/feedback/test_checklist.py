"""TICK: questions written once a prompt, pass rates by hand, and what counts as NO and what as no verdict."""

from __future__ import annotations

import math

import pytest

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback.build import build_feedback
from alignment.feedback.checklist import Checklist
from alignment.feedback.verdicts import Reply
from tests.feedback.scripted import PROMPT, Scripted, text_in, user_text

QUESTIONS = "1. LINE Is a bird named?\n2. LINE Is it one bird?\n- LINE Is it short?\n\nLINE Is it short?\n"


def is_writing(conversation: list[Message]) -> bool:
    return "<answer-" not in user_text(conversation)


def birds(conversation: list[Message]) -> str:
    """Writes QUESTIONS; answers by a rule of each question."""
    if is_writing(conversation):
        return QUESTIONS
    question, answer = text_in(conversation, "question"), text_in(conversation, "answer")
    named = answer.count("finch") + answer.count("wren")
    passed = {"Is a bird named?": named > 0, "Is it one bird?": named == 1, "Is it short?": len(answer) < 20}[question]
    return f"Because.\nLINE {'yes' if passed else 'NO'}"


def test_pass_rates_by_hand() -> None:
    chat = Scripted(birds)
    judge = Checklist(chat=chat)
    answers = ["A finch.", "A finch, a wren.", "A dog that chases birds.", "A wren, I do believe it is."]
    assert judge.score([PROMPT] * 4, answers) == [1.0, 2 / 3, 0.0, 2 / 3]
    assert judge.counts["yes"] / judge.counts["questions"] == pytest.approx(7 / 12)  # the paper's DRFR
    assert sum(map(is_writing, chat.asked)) == 1  # written once for the prompt, a repeated question asked once
    assert len(chat.asked) == 1 + 4 * 3
    judge.score([PROMPT], ["A wren."])
    assert sum(map(is_writing, chat.asked)) == 1


def test_pairwise_by_pass_rate_with_ties() -> None:
    judge = Checklist(chat=Scripted(birds))
    first = ["A finch.", "A dog that chases birds.", "A finch, a wren."]
    second = ["A finch, a wren.", "A wren.", "A wren, I do believe it is."]
    assert judge.prefer([PROMPT] * 3, first, second) == [1.0, 0.0, 0.5]


def test_a_given_checklist_takes_the_place_of_a_written_one() -> None:
    chat = Scripted(birds)
    context = [{"checklist": ["Is it one bird?"]}, {"checklist": ("Is it short?", "Is a bird named?")}, {}]
    assert Checklist(chat=chat).score([PROMPT] * 3, ["A finch, a wren."] * 3, context) == [0.0, 1.0, 2 / 3]
    for wrong in ("Is it short?", [], [3], {"a": 1}):
        with pytest.raises(UserError, match="the context of row 1 has a checklist that is no list of questions"):
            Checklist(chat=chat).score([PROMPT] * 2, ["x"] * 2, [{}, {"checklist": wrong}])


def test_what_says_neither_is_no_and_what_does_not_come_is_no_verdict() -> None:
    def says(conversation: list[Message]) -> str | Reply:
        if is_writing(conversation):
            return "LINE One?\nLINE Two?"
        if text_in(conversation, "question") == "One?":
            return "LINE YES"
        return {
            "unclear": "Perhaps.",
            "both": "LINE YES\nLINE NO",
            "cut": Reply("LINE YES", "cut off"),
            "late": Reply(None, "time-out"),
            "spent": Reply(None, "budget"),
        }[text_in(conversation, "answer")]

    judge = Checklist(chat=Scripted(says))
    found = judge.score([PROMPT] * 5, ["unclear", "both", "cut", "late", "spent"])
    assert found[:3] == [0.5] * 3
    assert all(math.isnan(share) for share in found[3:])
    assert judge.counts["unreadable, taken as no"] == 3
    assert (judge.counts["no verdict: time-out"], judge.counts["no verdict: budget"]) == (1, 1)
    assert math.isnan(judge.prefer([PROMPT], ["late"], ["both"])[0])


@pytest.mark.parametrize("written", ["", "Is a bird named?", "LINE", Reply("LINE One?", "cut off"), Reply(None, "x")])
def test_no_checklist_is_no_verdict_and_asks_nothing(written: str | Reply) -> None:
    chat = Scripted(lambda conversation: written)
    judge = Checklist(chat=chat)
    assert math.isnan(judge.score([PROMPT], ["A finch."])[0])
    assert len(chat.asked) == 1
    assert sum(n for reason, n in judge.counts.items() if reason.startswith("no verdict: checklist")) == 1


def test_only_so_many_questions() -> None:
    judge = Checklist(chat=Scripted(birds), most_questions=2)
    assert judge.questions([PROMPT]) == [["Is a bird named?", "Is it one bird?"]]


def test_built_by_name_with_a_model_here() -> None:
    judge = build_feedback({"name": "checklist", "path": "tiny"})
    context = [{"checklist": ["Is it short?", "Is it a bird?"]}] * 2
    assert all(share in (0.0, 0.5, 1.0) for share in judge.score([PROMPT] * 2, ["A finch.", "Dogs."], context))
    assert judge.counts["questions"] == judge.counts["requests"] == 4
    with pytest.raises(UserError, match="most_questions=0"):
        build_feedback({"name": "checklist", "path": "tiny", "most_questions": 0})
