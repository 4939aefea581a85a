"""A critic that is a stated rule: what keeps an answer from being concise and plainly worded, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alignment.data.example import Judgment
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.protocols import Context, Critic, Prompts
from alignment.feedback.rules import PlainWords, sentence_count, words_of

NAMED = 8  # words that a judgment names
NO_WORD = "It says nothing in words."
PRAISE = "It is concise and plainly worded."


@dataclass
class PlainCritic(Critic):
    """Reviews by the rule plain_words: satisfactory from a number of its points on, else what costs the most points.

    The rule's score is ten times a product of factors in [0, 1], and the points are those of the factors in `about`. A
    judgment names the ones below `fault`, the lowest first, but no more than `most` and at least one, and where the
    words themselves are to blame it names them: "These words are long: temperature, phenomena. It is too long: 63
    words, where 20 would do." Whether an answer is true, or fits its prompt, the rule cannot see.
    """

    satisfied_from: float = 5.0  # points of 10
    about: list[str] = field(default_factory=lambda: [*_SAID])
    most: int = 2  # faults that a judgment names
    fault: float = 0.85  # the factor of a fault
    of: PlainWords = field(default_factory=PlainWords)

    def __post_init__(self) -> None:
        known = ", ".join(_SAID)
        if not isinstance(self.about, (list, tuple)) or not self.about or not set(self.about) <= set(_SAID):
            raise checks.WrongSetting(self, "about", f"a list of some of {known} is needed")
        checks.number(self, "satisfied_from", 0, 10)
        checks.number(self, "most", 1, whole=True)
        checks.number(self, "fault", 0, 1)
        if not isinstance(self.of, PlainWords):
            raise UserError(f"plain_critic.of: the rule plain_words is needed, not {type(self.of).__name__}")

    def review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]:
        """One judgment for each completion, always with a verdict; neither prompts nor context are looked at."""
        return [self.judgment(text) for text in completions]

    def judgment(self, text: str) -> Judgment:
        """The judgment of one text."""
        factors = {name: value for name, value in self.of.factors(text).items() if name in self.about}
        if not factors:
            return Judgment(NO_WORD, False)
        if 10.0 * math.prod(factors.values()) >= self.satisfied_from:
            return Judgment(PRAISE, True)
        lowest = sorted(factors, key=lambda name: factors[name])
        faults = [name for name in lowest if factors[name] < self.fault][: self.most] or lowest[:1]
        return Judgment(" ".join(_SAID[name](text, self.of) for name in faults), False)


def _long_words(text: str, rule: PlainWords) -> str:
    long = list(dict.fromkeys(word for word in words_of(text) if len(word) >= rule.long_word))
    if not long:
        return "Some of its words are long."
    more = f", and {len(long) - NAMED} more" if len(long) > NAMED else ""
    return f"These words are long: {', '.join(long[:NAMED])}{more}."


def _sentences(text: str, rule: PlainWords) -> str:
    mean = len(words_of(text)) / max(1, sentence_count(text))
    return f"Its sentences are long: {mean:.0f} words each, where {rule.sentence_target} would do."


def _repetition(text: str, rule: PlainWords) -> str:
    words = words_of(text)
    seen: set[tuple[str, ...]] = set()
    for triple in zip(words, words[1:], words[2:], strict=False):
        if triple in seen:
            return f'It repeats itself: "{" ".join(triple)}".'
        seen.add(triple)
    return "It repeats itself."


# What is said of a text that one factor of the rule is low for.
_SAID: dict[str, Callable[[str, PlainWords], str]] = {
    "length": lambda text, rule: f"It is too long: {len(words_of(text))} words, where {rule.target} would do.",
    "long words": _long_words,
    "sentences": _sentences,
    "brevity": lambda text, rule: f"It says too little: {len(words_of(text))} words of at least {rule.fewest}.",
    "little words": lambda text, rule: "It is a string of catchwords and no sentence.",
    "repetition": _repetition,
    "signs": lambda text, rule: "Much of it is signs and no words.",
}
