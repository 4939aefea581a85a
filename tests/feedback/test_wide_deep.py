"""WideDeep: the means by hand, who sees whose reviews, and what is left out."""

from __future__ import annotations

import math
import re

import pytest

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback.build import build_feedback
from alignment.feedback.verdicts import Reply
from alignment.feedback.wide_deep import WideDeep
from tests.feedback.scripted import PROMPT, Scripted, line_of, text_in, user_text


def all_in(conversation: list[Message], slot: str) -> list[str]:
    mark = line_of(conversation)[-9:-1]
    return re.findall(f"<{slot}-{mark}>\n(.*?)\n</{slot}-{mark}>", user_text(conversation), re.DOTALL)


def network(grades, views: str = "LINE $p0& $p1& $p2&$p3&"):
    """Says `views`, then for each review the grades of (perspective, layer from 0, the text that stands as A)."""

    def says(conversation: list[Message]) -> str | Reply:
        if not all_in(conversation, "perspective"):
            return views
        near = all_in(conversation, "perspective")
        layer = int("Earlier reviews" in user_text(conversation))
        return grades(near, layer, text_in(conversation, "first"))

    return Scripted(says)


def test_the_mean_over_layers_neurons_and_orders_by_hand() -> None:
    # By perspective in layer 0, (A, B) with "x" as A and with "y" as A; layer 1 says 5 5 throughout.
    table = {("p0", "x"): (9, 3), ("p0", "y"): (8, 4), ("p1", "x"): (6, 6), ("p1", "y"): (7, 5)}

    def grades(near: list[str], layer: int, a: str) -> str:
        one, other = (5, 5) if layer else table[near[0], a]
        return f"Because.\nLINE {one} {other}"

    # x: 9 + 4 + 6 + 5 = 24 over 4; y: 3 + 8 + 6 + 7 = 24: a tie, which layer 1 does not change.
    judge = WideDeep(chat=network(grades, "LINE $p0& $p1&"))
    assert judge.prefer([PROMPT], ["x"], ["y"]) == [0.5]
    table["p1", "y"] = (6, 5)  # y loses a point in the swapped order
    assert judge.prefer([PROMPT] * 2, ["x", "y"], ["y", "x"]) == [1.0, 0.0]
    table["p1", "y"] = (7, 4)  # x loses one
    assert judge.prefer([PROMPT], ["x"], ["y"]) == [0.0]


def test_later_layers_count_too() -> None:
    judge = WideDeep(
        chat=network(lambda near, layer, a: ("LINE 5 6" if layer == 0 else "LINE 7 5") if a == "x" else ("LINE 5 5"))
    )
    # With x as A: layer 0 has 5 against 6, layer 1 has 7 against 5; with y as A all are 5.
    assert judge.prefer([PROMPT], ["x"], ["y"]) == [1.0]
    judge.layers = 1
    assert judge.prefer([PROMPT], ["x"], ["y"]) == [0.0]


def test_a_neuron_sees_its_own_and_its_neighbours_reviews() -> None:
    chat = network(lambda near, layer, a: f"review of {near} in layer {layer} of {a}\nLINE 6 4")
    judge = WideDeep(chat=chat, layers=2)
    judge.prefer([PROMPT], ["x"], ["y"])
    assert len(chat.asked) == 1 + 2 * 2 * 4
    later = [asked for asked in chat.asked if all_in(asked, "reviews")]
    seen = {tuple(all_in(asked, "perspective")) for asked in later}
    assert seen == {("p0", "p1"), ("p0", "p1", "p2"), ("p1", "p2", "p3"), ("p2", "p3")}
    for asked in later:  # the reviews of the layer before, of the same order, by these perspectives
        a = text_in(asked, "first")
        expected = [
            f"review of ['{view}'] in layer 0 of {a}\nGrade of A: 6, grade of B: 4"
            for view in all_in(asked, "perspective")
        ]
        assert all_in(asked, "reviews") == expected


def test_a_neuron_without_grades_in_one_order_is_left_out_in_both() -> None:
    def grades(near: list[str], layer: int, a: str) -> str | Reply:
        if near[0] == "p0":
            return "LINE 9 1" if a == "x" else Reply(None, "time-out")
        return "LINE 4 5" if a == "x" else "LINE 5 4"

    judge = WideDeep(chat=network(grades, "LINE $p0& $p1&"), layers=1)
    assert judge.prefer([PROMPT], ["x"], ["y"]) == [0.0]  # p1 alone: 4 + 4 against 5 + 5
    assert judge.counts == {"no verdict: time-out": 1}


@pytest.mark.parametrize("said", ["", "LINE 5", "LINE 5 11", "5 6", "LINE 5 6\nLINE 6 5", "LINE 5 6 7"])
def test_unreadable_grades_are_no_verdict(said: str) -> None:
    judge = WideDeep(chat=network(lambda near, layer, a: said, "LINE $p0&"), layers=1)
    assert math.isnan(judge.prefer([PROMPT], ["x"], ["y"])[0])
    assert sum(n for reason, n in judge.counts.items() if reason.startswith("no verdict")) == 2


@pytest.mark.parametrize("views", ["$p0&", "LINE p0, p1", "LINE $&", Reply("LINE $p0&", "cut off"), Reply(None, "x")])
def test_no_perspective_is_no_verdict(views: str | Reply) -> None:
    chat = network(lambda near, layer, a: "LINE 9 1", views)
    judge = WideDeep(chat=chat)
    assert math.isnan(judge.prefer([PROMPT], ["x"], ["y"])[0])
    assert len(chat.asked) == 1
    assert sum(n for reason, n in judge.counts.items() if reason.startswith("no verdict: perspectives")) == 1


def test_only_so_many_perspectives() -> None:
    judge = WideDeep(chat=network(lambda near, layer, a: ""), most_perspectives=3)
    assert judge.perspectives([PROMPT], ["x"], ["y"]) == [["p0", "p1", "p2"]]


def test_built_by_name_and_refused() -> None:
    judge = build_feedback({"name": "wide_deep", "path": "tiny", "max_tokens": 4})
    assert math.isnan(judge.prefer([PROMPT], ["A finch."], ["A wren."])[0])  # the tiny model names no perspective
    for wrong, message in (({"layers": 0}, "layers=0"), ({"read": "probabilities"}, "the grades are read from text")):
        with pytest.raises(UserError, match=message):
            build_feedback({"name": "wide_deep", "path": "tiny", **wrong})
