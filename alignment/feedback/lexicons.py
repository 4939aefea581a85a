"""Rewards of the text alone by well-kept packages: readability (textstat), sentiment (VADER), profanity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from alignment.feedback import checks
from alignment.feedback.rules import TextRule, words_of

AROUND = ".,;:!?\"'“”‘’()[]{}…"  # punctuation at a word's ends; @ and $ stand for letters in swear words
# textstat's indices of English. Of flesch_reading_ease higher is easier; of all others higher is harder.
INDICES = (
    "flesch_reading_ease",
    "mcalpine_eflaw",
    "automated_readability_index",
    "coleman_liau_index",
    "dale_chall_readability_score",
    "flesch_kincaid_grade",
    "gunning_fog",
    "linsear_write_formula",
    "lix",
    "rix",
    "smog_index",
    "spache_readability",
)


@dataclass
class Readability(TextRule):
    """A readability index of English text by the package textstat; NaN for a text without a word.

    `index` is the name of textstat's function, such as flesch_reading_ease (206.835 - 1.015 · words per sentence -
    84.6 · syllables per word; about 0 to 100, higher is easier) or flesch_kincaid_grade (years of school: lower is
    easier, so give it a negative weight in a `sum`). No index is bounded.
    """

    index: str = "flesch_reading_ease"

    def __post_init__(self) -> None:
        checks.choice(self, "index", INDICES)
        self._function = getattr(checks.package("textstat", "readability"), self.index)

    def of(self, text: str) -> float:
        """In the index's own unit."""
        return float(self._function(text)) if words_of(text) else math.nan


@dataclass
class Sentiment(TextRule):
    """VADER's compound sentiment of English text: in [-1, 1], 0 where no word of its lexicon stands."""

    def __post_init__(self) -> None:
        module = checks.package("vaderSentiment.vaderSentiment", "sentiment")
        self._analyser = module.SentimentIntensityAnalyzer()

    def of(self, text: str) -> float:
        """In [-1, 1]."""
        return float(self._analyser.polarity_scores(text)["compound"])


@dataclass
class Profanity(TextRule):
    """Minus the share (or count) of words that the package better-profanity takes for swear words; 0 where none is.

    Words are what stands between white space, without punctuation at their ends, each looked at alone; spellings such
    as sh1t are found, phrases of several words are not. English.
    """

    measure: str = "share"  # share, in [-1, 0] | count, minus a whole number

    def __post_init__(self) -> None:
        checks.choice(self, "measure", ("share", "count"))
        profanity = checks.package("better_profanity", "profanity").profanity
        profanity.load_censor_words()
        self._is_profane = lru_cache(maxsize=100_000)(profanity.contains_profanity)  # it takes a millisecond a word

    def of(self, text: str) -> float:
        """Minus the share or count."""
        words = [word for word in (part.strip(AROUND) for part in text.lower().split()) if word]
        found = sum(map(self._is_profane, words))
        return 0.0 - (found / max(1, len(words)) if self.measure == "share" else found)
