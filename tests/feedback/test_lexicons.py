"""Readability, sentiment and profanity: their formulas by hand, and what they say of texts without words."""

from __future__ import annotations

import math
import sys

import pytest

from alignment.errors import UserError
from alignment.feedback.build import build_feedback
from alignment.feedback.lexicons import INDICES, Profanity, Readability, Sentiment
from tests.feedback.toys import score

TEXT = "The cat sat on the mat. The dog ran."  # 9 words, 9 syllables, 2 sentences


def test_readability_by_hand() -> None:
    ease, grade = Readability("flesch_reading_ease"), Readability("flesch_kincaid_grade")
    assert score(ease, TEXT) == pytest.approx([206.835 - 1.015 * 9 / 2 - 84.6 * 9 / 9])
    assert score(grade, TEXT) == pytest.approx([0.39 * 9 / 2 + 11.8 * 9 / 9 - 15.59])


def test_every_index_gives_a_number_and_no_word_none() -> None:
    for index in INDICES:
        rule = Readability(index)
        assert math.isfinite(rule.of(TEXT)), index
        assert math.isfinite(rule.of("Yes")), index
        assert math.isnan(rule.of(" ?! ")), index


def test_sentiment_by_hand() -> None:
    # VADER: a word of valence v alone gives v / sqrt(v² + 15); "good" is 1.9, "bad" -2.5.
    assert score(Sentiment(), "good", "bad", "table", "") == pytest.approx(
        [1.9 / math.sqrt(1.9**2 + 15), -2.5 / math.sqrt(2.5**2 + 15), 0.0, 0.0], abs=1e-4
    )


def test_profanity_is_minus_the_share_or_the_count() -> None:
    texts = ("what the hell is this", "You sh1t, you SHIT!", "a class of grass", "", "...")
    assert score(Profanity(), *texts) == [-1 / 5, -2 / 4, 0.0, 0.0, 0.0]
    assert score(Profanity("count"), *texts) == [-1.0, -2.0, 0.0, 0.0, 0.0]
    assert str(score(Profanity(), "fine")[0]) == "0.0"


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("readability", "textstat"),
        ("sentiment", "vaderSentiment.vaderSentiment"),
        ("profanity", "better_profanity"),
        ("rouge", "rouge_score.rouge_scorer"),
        ("bleu", "sacrebleu.metrics"),
    ],
)
def test_a_missing_package_names_the_command(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it then fails
    with pytest.raises(UserError, match=rf'{kind} needs a package.*: pip install "alignment-toolkit\[feedback\]"'):
        build_feedback(kind)
