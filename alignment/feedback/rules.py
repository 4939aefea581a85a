"""Rewards that are stated rules: the same text gets the same score, and a reader can check it by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.errors import unknown
from alignment.feedback.protocols import Prompts, Reward

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


@dataclass(frozen=True)
class PlainWords(Reward):
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

    def score(self, prompts: Prompts, completions: Sequence[str], context: Any = None) -> list[float]:
        """One score for each completion; the prompts are not looked at."""
        return [self.of(text) for text in completions]

    def of(self, text: str) -> float:
        """The score of one text."""
        words = [word.lower().replace("’", "'") for word in WORD.findall(text)]
        n = len(words)
        if n == 0:
            return 0.0
        # "1." before a list entry is no sentence of its own.
        sentences = max(1, sum(1 for part in SENTENCE_END.split(text) if LETTER.search(part)))
        long = sum(len(word) >= self.long_word for word in words) / n
        little = sum(word in LITTLE_WORDS for word in words) / n
        triples = list(zip(words, words[1:], words[2:], strict=False))
        distinct = len(set(triples)) / len(triples) if triples else 1.0
        signs = "".join(text.split())
        letters = sum(map(str.isalnum, signs)) / len(signs)
        wanted = (
            min(1.0, self.target / n) * (1.0 - long) ** 2 * math.sqrt(min(1.0, self.sentence_target * sentences / n))
        )
        return 10.0 * wanted * min(1.0, n / self.fewest) * min(1.0, little / 0.2) * distinct * min(1.0, letters / 0.8)


REWARDS: dict[str, Callable[[], Reward]] = {"plain_words": PlainWords}


def build_reward(name: str) -> Reward:
    """The reward of that name; UserError that names the nearest ones where there is none."""
    if name not in REWARDS:
        raise unknown("score", name, REWARDS)
    return REWARDS[name]()
