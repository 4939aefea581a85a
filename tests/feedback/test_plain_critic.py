"""The rule that writes judgments: verdicts by points, faults by their factors, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.data.example import Judgment
from alignment.errors import UserError
from alignment.feedback.adapters import Satisfied
from alignment.feedback.build import build_feedback
from alignment.feedback.plain_critic import NO_WORD, PRAISE, PlainCritic
from alignment.feedback.protocols import Critic, Judge, Reward
from alignment.feedback.rules import PlainWords

PLAIN = "Put the pan on the stove, and add the oil when it is hot."  # 14 words, none of seven letters
LONG = "The atmospheric phenomena of the weather are described by the statistical meteorology of the atmosphere."


@pytest.mark.parametrize(
    ("text", "judgment"),
    [
        (PLAIN, Judgment(PRAISE, True)),
        ("", Judgment(NO_WORD, False)),
        ("…", Judgment(NO_WORD, False)),
        # 15 words, 7 of them long: (8/15)² = 0.28, and nothing else is below 0.85.
        (
            LONG,
            Judgment(
                "These words are long: atmospheric, phenomena, weather, described, statistical, meteorology, "
                "atmosphere.",
                False,
            ),
        ),
        # 3 words: 3/8, and no little word: 0.
        (
            "Hot oil pan.",
            Judgment("It is a string of catchwords and no sentence. It says too little: 3 words of at least 8.", False),
        ),
        # 42 words in three sentences: 20/42 = 0.48; the triples come three times: 14 + 2 distinct of 40.
        (
            f"{PLAIN} {PLAIN} {PLAIN}",
            Judgment('It repeats itself: "put the pan". It is too long: 42 words, where 20 would do.', False),
        ),
        # 27 words without a full stop: 20/27 = 0.741, √(15/27) = 0.745.
        (
            "it is as it was and so we go on to the sea and up to the hill and then we sit by it and so on",
            Judgment(
                "It is too long: 27 words, where 20 would do. "
                "Its sentences are long: 27 words each, where 15 would do.",
                False,
            ),
        ),
        # 6 words: 6/8 = 0.75; 8 of 46 signs are letters or digits: 0.17 / 0.8 = 0.22.
        (
            "it is a b c = 4 # ## ### #### ##### ###### ######## ########",
            Judgment("Much of it is signs and no words. It says too little: 6 words of at least 8.", False),
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, judgment: Judgment) -> None:
    critic = PlainCritic(satisfied_from=8.0, fault=0.9)
    assert critic.judgment(text) == judgment
    assert critic.review([[]], [text]) == [judgment]


def test_it_may_be_about_some_things_alone() -> None:
    wordy = PLAIN * 5
    words = PlainCritic(about=["long words"], satisfied_from=8.1)
    assert not PlainCritic().judgment(wordy).satisfactory and words.judgment(wordy).satisfactory
    # One long word in ten: (9/10)² = 0.81. One in nine: 0.79.
    assert words.judgment("it is so and so it is so and nothing").satisfactory
    found = words.judgment("it is so and so it is so nothing")
    assert found == Judgment("These words are long: nothing.", False)


def test_many_long_words_are_counted() -> None:
    many = " ".join(f"tremendous{letter}" for letter in "abcdefghijk")
    said = PlainCritic(about=["long words"], most=1).judgment(many).text
    assert said is not None and said.endswith("tremendoush, and 3 more.") and said.count("tremendous") == 8


@given(st.text(max_size=200), st.floats(0, 10))
def test_the_verdict_is_the_rules(text: str, bar: float) -> None:
    judgment = PlainCritic(satisfied_from=bar).judgment(text)
    points = PlainWords().of(text)
    assert judgment.satisfactory == (points >= bar and bool(PlainWords().factors(text))) and judgment.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"satisfied_from": 11}, "satisfied_from=11"),
        ({"most": 0}, "most=0"),
        ({"fault": 2}, "fault=2"),
        ({"about": []}, r"about=\[\]: a list of some of length, long words"),
        ({"about": ["words"]}, "about="),
        ({"of": "length"}, "the rule plain_words is needed, not Length"),
    ],
)
def test_refusals(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        build_feedback({"name": "plain_critic", **settings})


def test_by_name() -> None:
    critic = build_feedback({"name": "plain_critic", "of": {"name": "plain_words", "target": 5}})
    assert isinstance(critic, Critic) and not isinstance(critic, (Reward, Judge)) and critic.of.target == 5
    assert Satisfied(build_feedback("plain_critic")).score([[], []], [PLAIN, LONG]) == [1.0, 0.0]
