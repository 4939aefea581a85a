from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from alignment.evaluation.sample_browser import MOST, Side, entry, marked

WORDS = st.lists(st.sampled_from(["a", "b", "c", "don't", " ", "\n", "  \t", ".", "é", "\u3000"]), max_size=30)


def of(row: dict[str, Any]) -> list[list[str]]:
    return [side["pieces"] for side in row["sides"]]


def test_words_that_differ_are_the_odd_pieces() -> None:
    assert marked("The cat sat on the mat.", "The dog sat on the mat.") == (
        ["The ", "cat", " sat on the mat."],
        ["The ", "dog", " sat on the mat."],
        "",
    )
    # Something new at the start, and something gone at the end; nothing stands against either.
    assert marked("one two three four five", "well, one two three four") == (
        ["one two three four ", "five"],
        ["", "well,", " one two three four"],
        "",
    )


def test_each_text_keeps_its_own_white_space() -> None:
    assert marked("a b\n\nc d e", "a  b c d\te f") == (["a b\n\nc d e"], ["a  b c d\te ", "f"], "")


def test_what_is_not_marked_says_why() -> None:
    assert marked("same", "same") == (["same"], ["same"], "the same text")
    assert marked("one two three", "four five six") == (["one two three"], ["four five six"], "rewritten")
    assert marked("", "new") == ([""], ["new"], "")
    again = "and the cat sat. " * 500  # takes minutes to compare
    assert marked(again, again + "x")[2] == "too long to mark"


@given(WORDS, WORDS)
def test_the_pieces_are_the_texts(first: list[str], second: list[str]) -> None:
    before, after = "".join(first), "".join(second)
    old, new, note = marked(before, after)
    assert ("".join(old), "".join(new)) == (before, after)
    same = ["".join("".join(pieces[::2]).split()) for pieces in (old, new)]
    if not note and before and after:  # what is not marked is the same in both, but for white space
        assert same[0] == same[1]
    assert all(piece and piece == piece.rstrip() for pieces in (old, new) for piece in pieces[1::2])


def test_of_several_answers_each_is_held_against_the_first() -> None:
    texts = ("one two three four", "one two three five", "one two three four")
    row = entry(3, "p\u202e", [Side(text, score=score) for text, score in zip(texts, (1.0, 0.5, None), strict=True)])
    assert row["place"] == 3 and row["prompt"] == "p<U+202E>"
    assert of(row) == [["one two three four"], ["one two three ", "five"], ["one two three four"]]
    assert row["changes"] == [{"value": -0.5, "text": "change -0.50", "tone": "bad"}, None]
    assert [side["facts"] for side in row["sides"]] == ["score +1.00", "score +0.50", "the same text"]


def test_length_is_tokens_or_else_characters() -> None:
    row = entry(1, None, [Side("", 0), Side("four"), Side("x" * (MOST + 7), 9)])
    assert [side["length"] for side in row["sides"]] == [0, 4, 9]
    assert row["prompt"] == "" and of(row)[0] == []
    assert of(row)[2][0].endswith(" … (+7 characters)")


def test_a_side_is_read_as_it_was_written() -> None:
    row = {"before": None, "after": 5, "tokens_after": 2, "score_after": float("nan"), "score_before": "high"}
    assert Side.of(row, "before") == Side("") and Side.of(row, "after") == Side("5", 2.0)
    assert Side.of({}, "after") == Side("")
