from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from alignment.evaluation.text import decimal, duration, interval, number, percent, plus_minus, shortened, visible


@given(st.text(st.characters(blacklist_categories=())))
def test_visible_text_encodes_and_holds_no_control_characters(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")
    assert all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") for char in shown)
    assert visible(shown) == shown


def test_visible_names_what_it_replaces_and_leaves_the_rest() -> None:
    assert visible("a\u202eb\x00c\x1b[31m\ud800") == "a<U+202E>b<U+0000>c<U+001B>[31m<U+D800>"
    assert visible("1\r\n2\r3\u20284\x855\t6") == "1\n2\n3\n4\n5\t6"
    family = "\U0001f469\u200d\U0001f467 naïve 你好 שלום"  # joiners and right-to-left letters are text
    assert visible(family) == family


def test_numbers_are_finite_or_nothing() -> None:
    assert number("1.0") is None
    assert number(None) is None
    assert number(float("nan")) is None
    assert number(float("inf")) is None
    assert number([1]) is None
    assert number(True) == 1.0


def test_how_numbers_are_written() -> None:
    assert decimal(0.5512, sign=True) == "+0.55"
    assert decimal(-0.001, sign=True) == "0.00"
    assert decimal(3140.2, 0, unit=" MB") == "3,140 MB"
    assert decimal(None) == "–"
    assert percent(0.714) == "71.4 %"
    assert interval([-0.3, 0.8]) == "[-0.30, +0.80]"
    assert interval([0.3, None]) == interval([1.0]) == interval(None) == ""
    assert plus_minus(1.234, 0.15) == "1.23 ± 0.15"
    assert plus_minus(1.234, float("nan")) == "1.23"
    assert [duration(value) for value in (0.04, 48, 211.4, 59.7, 7500, None)] == [
        "0.0 s",
        "48 s",
        "3 min 31 s",
        "1 min 00 s",
        "2 h 05 min",
        "–",
    ]
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdef", 3) == "abc … (+3 characters)"
