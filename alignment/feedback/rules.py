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
LITTLE_WORDS = (
    "a an the and or but so if when as than of to in on at for with from by up out about into is are was were be been "
    "am do does did have has had can could will would may should not no it its it's this that these those there i "
    "you your he she his her they their we our my me him them us who which what how all some any more"
)
GLUE = frozenset(LITTLE_WORDS.split())


@dataclass(frozen=True)
class PlainWords(Reward):
    """Concise and plainly worded: 0 to 10 points, higher is better.

    With n words, L the share of words of `long_word` or more letters, S the mean number of words in a sentence,
    G the share of little words (the, of, is, …), T the share of distinct word triples, A the share of letters and
    digits among the characters that are no white space:

        points = 10 - 2 log2(max(n, 20) / 20)        two points for each doubling of the length past 20 words
                    - 2 log2(10 / min(n, 10))        two points for each halving under 10 words
                    - 10 L                           one point for each tenth of the words that is long
                    - log2(max(S, 15) / 15)          one point for each doubling of the sentence length past 15 words
                    - 20 max(0, 0.2 - G)             word lists: one point for each 5 % of little words under 20 %
        score  = max(0, points) · T · min(1, A / 0.8)

    The second, the fifth term and the factors take away what such a rule invites: answers of a word or two, strings of
    catchwords, the same phrase over and over, rows of signs. A text without a word scores 0. Whether an answer is true
    the rule cannot see.
    """

    target: int = 20  # words of an answer
    sentence_target: int = 15  # words of a sentence
    long_word: int = 8  # letters
    fewest: int = 10  # words below which an answer says too little

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
        glue = sum(word in GLUE for word in words) / n
        triples = list(zip(words, words[1:], words[2:], strict=False))
        distinct = len(set(triples)) / len(triples) if triples else 1.0
        signs = "".join(text.split())
        letters = sum(map(str.isalnum, signs)) / len(signs)
        points = 10.0
        points -= 2.0 * math.log2(max(n, self.target) / self.target)
        points -= 2.0 * math.log2(self.fewest / min(n, self.fewest))
        points -= 10.0 * long
        points -= math.log2(max(n / sentences, self.sentence_target) / self.sentence_target)
        points -= 20.0 * max(0.0, 0.2 - glue)
        return max(0.0, points) * distinct * min(1.0, letters / 0.8)


REWARDS: dict[str, Callable[[], Reward]] = {"plain_words": PlainWords}


def build_reward(name: str) -> Reward:
    """The reward of that name; UserError that names the nearest ones where there is none."""
    if name not in REWARDS:
        raise unknown("score", name, REWARDS)
    return REWARDS[name]()
