"""Where the prompt ends in two texts that begin alike."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignment.data.formats.common import RowError
from alignment.data.formats.implicit import split_texts
from alignment.data.formats.transcripts import split_turns


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("The sky is blue.", "The sky is black.", ("The sky is", " blue.", " black.")),  # not "The sky is bl"
        ("The sky", "The skyline", ("The", " sky", " skyline")),
        ("Q: 2+2?\nA: 4", "Q: 2+2?\nA: 5", ("Q: 2+2?\nA:", " 4", " 5")),
        ("a  b", "a  c", ("a", "  b", "  c")),
        ("a b", "a b c", ("a", " b", " b c")),  # neither answer may be empty
        ("天空是蓝色", "天空是黑色", ("天空是", "蓝色", "黑色")),  # no spaces: between two ideographs
        ("cafe\u0301", "cafe\u0300", None),  # one word each, with different accents
        ("x=cafe\u0301", "x=cafe\u0300", ("x=", "cafe\u0301", "cafe\u0300")),
        ("naïve", "naïf", None),
        ("Yes", "No", None),
        (" a", " b", None),  # a prompt of white space is none
    ],
)
def test_split(chosen: str, rejected: str, expected: tuple[str, str, str] | None) -> None:
    if expected is None:
        with pytest.raises(RowError, match="do not begin with the same word"):
            split_texts(chosen, rejected)
    else:
        assert split_texts(chosen, rejected) == expected


def test_identical_texts_are_not_split() -> None:
    with pytest.raises(RowError, match="same text") as caught:
        split_texts("a b", "a b")
    assert caught.value.kind == "identical"


_WORDS = st.lists(st.text("abé", min_size=1, max_size=3), min_size=1, max_size=4).map(" ".join)


@settings(derandomize=True, deadline=None)
@given(_WORDS, _WORDS, _WORDS)
def test_parts_join_to_the_texts_and_no_word_is_cut(shared: str, one: str, two: str) -> None:
    chosen, rejected = f"{shared} {one}", f"{shared} {two}"
    assume(chosen != rejected)
    prompt, first, second = split_texts(chosen, rejected)
    assert (prompt + first, prompt + second) == (chosen, rejected)
    assert first[0] == second[0] == " "
    assert chosen.split()[: len(prompt.split())] == prompt.split() == rejected.split()[: len(prompt.split())]
    assert first.split()[:1] != second.split()[:1] or 1 in (len(first.split()), len(second.split()))


@settings(derandomize=True, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_any_two_texts_are_split_or_refused(chosen: str, rejected: str) -> None:
    try:
        prompt, first, second = split_texts(chosen, rejected)
    except RowError:
        return
    assert (prompt + first, prompt + second) == (chosen, rejected)
    assert prompt.strip()
    assert first.strip()
    assert second.strip()


def test_only_a_name_behind_a_blank_line_starts_a_turn() -> None:
    turns = (
        "Human: What did the Human: say?\nAssistant: no",
        "Assistant: Human: a",
        "Assistant:  b",
        "Human: c",
        "Assistant:",
    )
    text = "".join(f"\n\n{turn}" for turn in turns)
    assert [(turn["role"], turn["content"]) for turn in split_turns(text)] == [
        ("user", "What did the Human: say?\nAssistant: no"),
        ("assistant", "Human: a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", ""),
    ]
