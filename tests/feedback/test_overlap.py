"""Rewards against a reference, by hand."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.feedback.overlap import Bleu, ExactMatch, NumericMatch, Rouge, last_number
from alignment.feedback.protocols import Reward
from tests.feedback.toys import PROMPT


def against(reward: Reward, text: str, *references: str) -> float:
    return reward.score([PROMPT], [text], [{"reference": list(references)}])[0]


@pytest.mark.parametrize(
    ("normalise", "text", "reference", "equal"),
    [
        ("none", "Paris", "Paris", 1.0),
        ("none", "Paris ", "Paris", 0.0),
        ("spaces", " New\n York ", "New York", 1.0),
        ("spaces", "new york", "New York", 0.0),
        ("case", "NEW  YORK", "New York", 1.0),
        ("case", "Straße", "STRASSE", 1.0),
        ("case", "New York.", "New York", 0.0),
        ("words", "The 'New' York!", "a new york", 1.0),
        ("words", "theatre", "atre", 0.0),  # "the" is taken out as a word alone
    ],
)
def test_exact_match(normalise: str, text: str, reference: str, equal: float) -> None:
    assert against(ExactMatch(normalise), text, reference) == equal


def test_any_of_several_references_counts() -> None:
    assert against(ExactMatch(), "b", "a", "b") == 1.0
    assert against(NumericMatch(), "It is 4.", "3", "4") == 1.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 + 4 = 7 apples.", "7"),
        ("about 1,234,567.50 in all", "1234567.50"),
        ("x = -3", "-3"),
        ("10-3", "3"),  # a difference
        ("a loss of −$1,000.", "-1000"),
        ("$5 more", "5"),
        ("1, 2, 3", "3"),
        ("12,34", "34"),  # no thousands
        ("1.5e3", "1500"),
        (".5", "0.5"),
        ("2.", "2"),
        ("#### 72", "72"),
        ("none at all", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


def test_thousands_as_they_are_written_elsewhere() -> None:
    assert last_number("1.234,5 Euro", "point") == Decimal("1234.5")
    assert last_number("1 234.5 francs", "space") == Decimal("1234.5")
    assert last_number("1,234", "none") == Decimal("234")


@settings(deadline=None, max_examples=200)
@given(st.decimals(-(10**12), 10**12, places=3), st.sampled_from(["comma", "point", "none"]))
def test_a_number_is_read_back_as_it_was_written(number: Decimal, thousands: str) -> None:
    text = f"{number:,}" if thousands != "none" else str(number)
    if thousands == "point":
        text = text.translate(str.maketrans(",.", ".,"))
    assert last_number(f"We get {text} there.", thousands) == number


def test_numeric_tolerance_is_exact_at_its_edge() -> None:
    assert against(NumericMatch(tolerance=0.1), "0.4", "0.3") == 1.0  # 0.4 - 0.3 is more than 0.1 in floats
    assert against(NumericMatch(tolerance=0.1), "0.401", "0.3") == 0.0
    assert against(NumericMatch(relative=0.01), "99", "100") == 1.0
    assert against(NumericMatch(relative=0.01), "98.9", "100") == 0.0
    assert against(NumericMatch(), "1,000.0", "1000") == 1.0
    assert against(NumericMatch(), "no idea", "1000") == 0.0
    assert NumericMatch().score([PROMPT], ["7"], [{"reference": 7}]) == [1.0]


def test_a_missing_reference_names_row_and_key() -> None:
    rows = [{"reference": "a"}, {"meta": 1}]
    with pytest.raises(UserError, match=r"row 2 \(prompt 'Which\?'\) has no context\[\"reference\"\]"):
        ExactMatch().score([PROMPT] * 2, ["a", "b"], rows)
    with pytest.raises(UserError, match=r"row 1 .*context\[\"gold\"\].*no context was given"):
        Rouge(key="gold").score([PROMPT], ["a"])
    with pytest.raises(UserError, match=r"row 1.*no number in the reference 'many'"):
        NumericMatch().score([PROMPT], ["3"], [{"reference": "many"}])
    assert ExactMatch(key="gold").score([PROMPT], ["a"], [{"gold": "a"}]) == [1.0]


def test_rouge_by_hand() -> None:
    text, reference = "the cat sat", "the cat is on the mat"
    # 2 words of 3 and of 6 in common; 1 bigram of 2 and of 5; the longest common subsequence is "the cat".
    assert against(Rouge("rouge1", "precision"), text, reference) == pytest.approx(2 / 3)
    assert against(Rouge("rouge1", "recall"), text, reference) == pytest.approx(2 / 6)
    assert against(Rouge("rouge1", "f"), text, reference) == pytest.approx(2 * (2 / 3) * (1 / 3) / (2 / 3 + 1 / 3))
    assert against(Rouge("rouge2", "precision"), text, reference) == pytest.approx(1 / 2)
    assert against(Rouge("rougeL", "recall"), text, reference) == pytest.approx(2 / 6)
    assert against(Rouge("rougeL"), "sat cat", reference, text) == pytest.approx(0.4)  # the better of 1/4 and 2/5
    # Line by line, what the lines have in common adds up; as one text, their order breaks it.
    lines, swapped = "a cat sat\nthe dog ran", "the dog ran\na cat sat"
    assert against(Rouge("rougeLsum"), lines, swapped) == 1.0 and against(Rouge("rougeL"), lines, swapped) == 0.5
    assert against(Rouge("rouge1"), "cats", "cat") == 0.0 and against(Rouge("rouge1", stem=True), "cats", "cat") == 1.0


def test_bleu_by_hand() -> None:
    assert against(Bleu(), "the cat is on the mat", "the cat is on the mat") == pytest.approx(100.0)
    # Precisions 5/6, 3/5, 2/4, 1/3; the lengths are equal.
    wanted = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert against(Bleu(), "the cat is on a mat", "the cat is on the mat") == pytest.approx(wanted)
    # Three words have no 4-gram, and only as many orders count; brevity penalty exp(1 - 6 / 3).
    assert against(Bleu(), "the cat is", "the cat is on the mat") == pytest.approx(100 * math.exp(-1))
    assert against(Bleu(), "The cat is here", "the CAT is here") < 100
    assert against(Bleu(lowercase=True), "The cat is here", "the CAT is here") == pytest.approx(100.0)
    assert against(Bleu(), "", "the cat") == 0.0


words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "7"]), max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(words, words)
def test_ranges(text: str, reference: str) -> None:
    for variant in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        assert 0.0 <= against(Rouge(variant), text, reference) <= 1.0
    assert 0.0 <= against(Bleu(), text, reference) <= 100.0 + 1e-9
