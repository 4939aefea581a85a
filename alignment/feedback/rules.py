"""Rewards that are stated rules: the same text gets the same score, and a reader can check it by hand."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.feedback import checks
from alignment.feedback.protocols import Context, Prompts, Reward

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # letters and digits; "don't" is one word, "well-made" are two
LETTER = re.compile(r"[^\W\d_]")
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n+")
# The little words that hold an English sentence together; about four words in ten of ordinary prose.
_LITTLE = (
    "a an the and or but so if when as than of to in on at for with from by up out about into is are was were be been "
    "am do does did have has had can could will would may should not no it its it's this that these those there i "
    "you your he she his her they their we our my me him them us who which what how all some any more"
)
LITTLE_WORDS = frozenset(_LITTLE.split())
# A text that is nothing but one Markdown code block.
FENCED = re.compile(r"\s*```[^\n`]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: letters and digits, with an apostrophe inside ("don't" is one word)."""
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def sentence_count(text: str) -> int:
    """Parts that end in . ! ? or a line's end and hold a letter: "1." before a list entry is no sentence."""
    return sum(1 for part in SENTENCE_END.split(text) if LETTER.search(part))


class TextRule(Reward):
    """A reward that looks at the completion alone: subclasses give `of`, the score of one text."""

    def of(self, text: str) -> float:
        raise NotImplementedError

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """One score for each completion; neither prompts nor context are looked at."""
        return [self.of(text) for text in completions]


@dataclass(frozen=True)
class PlainWords(TextRule):
    """Concise and plainly worded: 0 to 10 points, higher is better.

    With n words, L the share of long words (seven or more letters, as in the readability index LIX), S the mean number
    of words in a sentence, G the share of little words (the, of, is, …), T the share of distinct word triples among all
    triples, A the share of letters and digits among the characters that are no white space:

        score = 10 · min(1, 20 / n)           concise: half the points for twice the words, beyond 20
                   · (1 - L)²                 plain words
                   · √min(1, 15 / S)          short sentences
                   · min(1, n / 8)            but not an answer of a word or two,
                   · min(1, G / 0.2)          no string of catchwords,
                   · T                        not the same phrase over and over,
                   · min(1, A / 0.8)          no rows of signs

    A text without a word scores 0. Whether an answer is true, or fits its prompt, the rule cannot see.
    """

    target: int = 20  # words of an answer
    sentence_target: int = 15  # words of a sentence
    long_word: int = 7  # letters
    fewest: int = 8  # words below which an answer says too little

    def __post_init__(self) -> None:
        for name in ("target", "sentence_target", "long_word", "fewest"):
            checks.number(self, name, 1, whole=True)

    def of(self, text: str) -> float:
        """The score of one text."""
        factors = self.factors(text)
        return 10.0 * math.prod(factors.values()) if factors else 0.0

    def factors(self, text: str) -> dict[str, float]:
        """What the score is ten times the product of, each in [0, 1], by what it is about; empty without a word."""
        words = words_of(text)
        n = len(words)
        if n == 0:
            return {}
        sentences = max(1, sentence_count(text))
        signs = "".join(text.split())
        return {
            "length": min(1.0, self.target / n),
            "long words": (1.0 - sum(len(word) >= self.long_word for word in words) / n) ** 2,
            "sentences": math.sqrt(min(1.0, self.sentence_target * sentences / n)),
            "brevity": min(1.0, n / self.fewest),
            "little words": min(1.0, sum(word in LITTLE_WORDS for word in words) / n / 0.2),
            "repetition": 1.0 - repeated_share(words, 3),
            "signs": min(1.0, sum(map(str.isalnum, signs)) / len(signs) / 0.8),
        }


UNITS = {"words": lambda text: len(words_of(text)), "characters": len, "sentences": sentence_count}


@dataclass(frozen=True)
class Length(TextRule):
    """How long a completion is, or how near it comes to a length.

    Without `target`: the count n of `unit`. With it: max(0, 1 - |n - target| / target), which is 1 at the target and
    0 for an empty text and from twice the target on.
    """

    unit: str = "words"  # words | characters (Unicode code points) | sentences
    target: int | None = None

    def __post_init__(self) -> None:
        checks.choice(self, "unit", UNITS)
        checks.number(self, "target", 1, whole=True, none=True)

    def of(self, text: str) -> float:
        """The count, at least 0; or with a target a score in [0, 1]."""
        count = UNITS[self.unit](text)
        return float(count) if self.target is None else max(0.0, 1.0 - abs(count - self.target) / self.target)


@dataclass(frozen=True)
class Regex(TextRule):
    """1 where the pattern is found (or, with `found` false, is not), else 0.

    `pattern` is a regular expression of Python's `re`; flags stand in it, such as (?i) for either case.
    """

    pattern: str
    found: bool = True
    full: bool = False  # the whole completion must match, not a part of it

    def __post_init__(self) -> None:
        checks.text(self, "pattern")
        checks.flag(self, "found", "full")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise checks.WrongSetting(self, "pattern", f"not a regular expression: {error}") from error

    def of(self, text: str) -> float:
        """0 or 1."""
        match = re.fullmatch(self.pattern, text) if self.full else re.search(self.pattern, text)
        return float((match is not None) == self.found)


@dataclass(frozen=True)
class JsonValid(TextRule):
    """1 where the whole completion is one JSON value (RFC 8259; white space around it is allowed), else 0.

    With `keys` it must be an object that has all of them. `fenced` allows one Markdown code block around it.
    """

    keys: list[str] = field(default_factory=list)
    fenced: bool = True

    def __post_init__(self) -> None:
        checks.flag(self, "fenced")
        if not isinstance(self.keys, (list, tuple)) or not all(isinstance(key, str) for key in self.keys):
            raise checks.WrongSetting(self, "keys", "a list of texts is needed, such as [name, age]")

    def of(self, text: str) -> float:
        """0 or 1."""
        block = FENCED.fullmatch(text) if self.fenced else None
        try:
            # Python's reader also takes NaN and Infinity, and refuses numbers of very many digits.
            value = json.loads(block.group(1) if block else text, parse_constant=_no_json, parse_int=float)
        except (ValueError, RecursionError):
            return 0.0
        return float(not self.keys or (isinstance(value, dict) and all(key in value for key in self.keys)))


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


@dataclass(frozen=True)
class Repetition(TextRule):
    """Minus the share of word n-grams that were there before: in (-1, 0], 0 where none repeats.

    With N = all n-grams and D = the distinct ones, the score is -(N - D) / N; 0 where the text has fewer than n
    words. The share itself is the seq-rep-n of Welleck et al. (1908.04319).
    """

    n: int = 4

    def __post_init__(self) -> None:
        checks.number(self, "n", 1, whole=True)

    def of(self, text: str) -> float:
        """Minus the repeated share."""
        return 0.0 - repeated_share(words_of(text), self.n)  # and not -0.0


def repeated_share(words: Sequence[str], n: int) -> float:
    """Share of the n-grams of `words` that occurred before, in [0, 1); 0 where there is no n-gram."""
    grams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = sum(grams.values())
    return (total - len(grams)) / total if total else 0.0
