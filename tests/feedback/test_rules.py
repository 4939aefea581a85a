"""Rules against scores worked out by hand, what they must refuse to reward, and their invariants."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.feedback.rules import JsonValid, Length, PlainWords, Regex, Repetition

PLAIN = "The cat sat on the mat in the sun and it was warm."  # 13 words, 8 little ones, none long
VOCABULARY = ["the", "cat", "of", "warm", "kitchen", "is", "marvellous", "and.", "one"]


def score(text: str) -> float:
    return PlainWords().score([[]], [text])[0]


def test_a_short_plain_answer_gets_all_points() -> None:
    assert score(PLAIN) == 10.0


def test_half_the_points_for_twice_the_words_past_20() -> None:
    names = ["red", "old", "big", "sad", "wet", "tan", "fat", "shy"]
    sentences = [f"The {name} dog and the {name} cat are in the house." for name in names]
    four, eight = " ".join(sentences[:4]), " ".join(sentences)  # 11 words a sentence; no long word
    assert score(four) == pytest.approx(10 * 20 / 44 * distinct(four))
    assert score(eight) == pytest.approx(10 * 20 / 88 * distinct(eight))


def distinct(text: str) -> float:
    words = text.lower().replace(".", "").split()
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) / len(triples)


def test_long_words_cost_their_share_twice() -> None:
    text = "The {} sat on the mat in the sun and it was warm."
    assert score(text.format("giraffe")) == pytest.approx(10 * (12 / 13) ** 2)  # 1 of 13 words has 7 letters
    assert score(text.format("rabbit")) == pytest.approx(10.0)  # 6 letters are not long


def test_sentences_of_more_than_15_words_lose_by_the_root() -> None:
    one = "The cat and a dog sat in the sun by an old red barn as we ate our lunch."  # 19 words
    two = "The cat and a dog sat in the sun. By an old red barn as we ate our lunch."
    assert score(one) == pytest.approx(10 * math.sqrt(15 / 19))
    assert score(two) == pytest.approx(10.0)


def test_a_list_number_is_no_sentence() -> None:
    numbered = "1. Wash the rice in a bowl of cold water until it is clear and then put it on the stove."
    # 21 words with the number, 1 sentence.
    assert score(numbered) == pytest.approx(10 * 20 / 21 * math.sqrt(15 / 21))


def test_answers_under_8_words_lose_in_proportion() -> None:
    assert score("It is on the mat.") == pytest.approx(10 * 5 / 8)
    assert score("It is on the mat by the door.") == pytest.approx(10.0)  # 8 words


def test_strings_of_catchwords_lose_in_proportion() -> None:
    text = "Cat dog fish bird horse sheep goat duck hen pig rat owl bee fox the"  # 1 little word of 15
    assert score(text) == pytest.approx(10 / 15 / 0.2)
    assert score("Cat dog fish bird horse sheep goat duck hen pig") == 0.0


def test_signs_lose_in_proportion() -> None:
    text = "The cat sat on the mat in the sun: " + "*" * 40  # 25 letters, 66 signs
    assert score(text) == pytest.approx(10 * (25 / 66) / 0.8)


@pytest.mark.parametrize("text", ["", "   \n", "!!! ??? ...", "***", "🙂🙂🙂", "__"])
def test_no_word_scores_nothing(text: str) -> None:
    assert score(text) == 0.0


@pytest.mark.parametrize(
    "gibberish",
    [
        "the " * 40,
        "you you you you you you you you you",
        "It is the cat. " * 10,
        "a # $ % & * ( ) = + the ^ ~ of | to < it",
        "I",
    ],
)
def test_gibberish_scores_far_below_plain_english(gibberish: str) -> None:
    assert score(gibberish) < 5.0 < score(PLAIN)


def test_one_word_repeated_by_hand() -> None:
    # 40 words, 38 triples of which 1 is distinct, one sentence of 40 words.
    assert score("the " * 40) == pytest.approx(10 * (20 / 40) * math.sqrt(15 / 40) / 38)


def test_an_apostrophe_does_not_split_a_word() -> None:
    assert (
        score("It's what we don't do that is bad for us and you.")
        == score("It’s what we don’t do that is bad for us and you.")
        == 10.0
    )


@settings(deadline=None)
@given(st.text(max_size=300))
def test_always_between_0_and_10(text: str) -> None:
    assert 0.0 <= score(text) <= 10.0


@settings(deadline=None)
@given(st.lists(st.sampled_from(VOCABULARY), min_size=8, max_size=40))
def test_saying_it_all_twice_never_helps(words: list[str]) -> None:
    text = " ".join(words)
    assert score(f"{text} {text}") <= score(text) + 1e-9


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii"), max_size=200))
def test_case_and_outer_space_do_not_matter(text: str) -> None:
    assert score(f"  {text.upper()}\n") == pytest.approx(score(text.lower()))


def test_one_score_for_each_completion() -> None:
    prompt = [{"role": "user", "content": "Where is the cat?"}]
    assert PlainWords().score([prompt] * 2, [PLAIN, ""]) == [10.0, 0.0]
    assert PlainWords().score([], []) == []


# The other rules.


@pytest.mark.parametrize(
    ("unit", "text", "count"),
    [
        ("words", "Don't panic: a well-made plan.", 6),  # Don't, panic, a, well, made, plan
        ("words", " \n", 0),
        ("characters", "Zoë 🙂", 5),
        ("sentences", "One. Two! 3. Three?\nFour", 4),  # "3." holds no letter
    ],
)
def test_length_counts(unit: str, text: str, count: int) -> None:
    assert Length(unit).of(text) == count


def test_length_with_a_target_falls_off_on_both_sides() -> None:
    rule = Length("characters", target=4)
    assert [rule.of("x" * n) for n in (0, 1, 3, 4, 5, 8, 20)] == [0.0, 0.25, 0.75, 1.0, 0.75, 0.0, 0.0]


def test_regex_found_or_not_and_the_whole_text() -> None:
    texts = ["the cat", "THE CAT", "a dog", ""]
    assert [Regex("cat").of(text) for text in texts] == [1.0, 0.0, 0.0, 0.0]
    assert [Regex("(?i)cat", found=False).of(text) for text in texts] == [0.0, 0.0, 1.0, 1.0]
    assert [Regex("[a-z ]+", full=True).of(text) for text in texts] == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (' {"a": 1, "b": null} \n', 1.0),
        ("[1, 2.5e3, true]", 1.0),
        ("9" * 5000, 1.0),  # more digits than Python makes a number of
        ('```json\n{"a": 1}\n```', 1.0),
        ("```\n3\n```\n", 1.0),
        ("{'a': 1}", 0.0),
        ("NaN", 0.0),  # Python's reader takes it, JSON does not
        ('Sure! {"a": 1}', 0.0),
        ('{"a": 1} {"b": 2}', 0.0),
        ("[" * 100_000, 0.0),
        ("", 0.0),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json(text: str, valid: float) -> None:
    assert JsonValid().of(text) == valid


def test_json_with_keys_and_without_a_fence() -> None:
    rule = JsonValid(keys=["a", "b"])
    assert [rule.of(text) for text in ('{"a": 0, "b": 0, "c": 0}', '{"a": 0}', '["a", "b"]')] == [1.0, 0.0, 0.0]
    assert JsonValid(fenced=False).of("```json\n1\n```") == 0.0


def test_repetition_is_minus_the_share_of_repeated_n_grams() -> None:
    assert Repetition(n=2).of("a b a b a") == -2 / 4  # ab ba ab ba
    assert Repetition(n=1).of("The the cat") == pytest.approx(-1 / 3)
    assert str(Repetition(n=4).of("four different words here")) == "0.0"
    assert str(Repetition(n=4).of("too short")) == "0.0"
