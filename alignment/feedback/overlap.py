"""Rewards against a reference: equal to it, the same number, or with its words (ROUGE, BLEU).

The reference is `context[row]["reference"]`, a text or a list of texts; `key` names another entry. With several, the
best one counts; BLEU takes them together, as it is defined.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.protocols import Context, Prompts, Reward

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _spaces(text: str) -> str:
    return " ".join(text.split())


def _words(text: str) -> str:
    return _spaces(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)))


# What is done to both texts before they are compared.
NORMALISERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "spaces": _spaces,
    "case": lambda text: _spaces(text).casefold(),
    "words": _words,
}
# A number: a sign (that stands behind no letter, digit or bracket), a currency, digits with thousands in threes, a
# fraction, an exponent. {t} is the sign between thousands, {d} the decimal one.
NUMBER = (
    r"(?:(?<![\w)])(?P<sign>[-+−]))?[$€£¥]?"
    r"(?P<digits>(?:\d{{1,3}}(?:{t}\d{{3}})+(?!\d)|\d+)(?:{d}\d+)?|(?<!\d){d}\d+)(?P<power>[eE][-+]?\d{{1,4}}(?!\d))?"
)
SEPARATORS = {"comma": (",", "."), "point": (".", ","), "space": (" ", "."), "none": (None, ".")}


class AgainstReference(Reward):
    """A reward that compares each completion with its references: subclasses give `of` and the field `key`."""

    key: str

    def of(self, text: str, references: list[str], where: str) -> float:
        """The score of one text; `where` names its row in an error."""
        raise NotImplementedError

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """One score for each completion.

        Raises:
            UserError: a row without a reference.
        """
        scores = []
        for row, text in enumerate(completions):
            given = None if context is None else context[row].get(self.key)
            if not (isinstance(given, (str, int, float)) or (isinstance(given, (list, tuple)) and given)):
                reason = "no context was given" if context is None else f"it is {given!r}"
                raise UserError(f'{_place(self, row, prompts)} has no context["{self.key}"] to compare with: {reason}')
            references = [str(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
            scores.append(self.of(text, references, _place(self, row, prompts)))
        return scores


def _place(owner: Any, row: int, prompts: Prompts) -> str:
    said = prompts[row][-1]["content"][:40] if prompts[row] else ""
    return f"{type(owner).__name__}: row {row + 1} (prompt {said!r})"


@dataclass
class ExactMatch(AgainstReference):
    """1 where the completion equals a reference after `normalise`, else 0.

    `normalise`: none, as they stand; spaces, white space trimmed and run together; case, that and upper or lower case
    do not matter; words, as for SQuAD: lower case, no ASCII punctuation, no a, an and the.
    """

    normalise: str = "spaces"
    key: str = "reference"

    def __post_init__(self) -> None:
        checks.choice(self, "normalise", NORMALISERS)
        checks.text(self, "key")

    def of(self, text: str, references: list[str], where: str) -> float:
        """0 or 1."""
        normalise = NORMALISERS[self.normalise]
        return float(normalise(text) in {normalise(reference) for reference in references})


@dataclass
class NumericMatch(AgainstReference):
    """1 where the last number of the completion is the last number of a reference, else 0; 0 where it has none.

    |answer - reference| <= max(tolerance, relative · |reference|), in decimal arithmetic. `thousands` says how
    numbers are written: comma (1,234.5), point (1.234,5), space (1 234.5) or none (1234.5; a comma ends a number).
    """

    tolerance: float = 0.0  # absolute
    relative: float = 0.0  # share of the reference
    thousands: str = "comma"
    key: str = "reference"

    def __post_init__(self) -> None:
        checks.number(self, "tolerance", 0)
        checks.number(self, "relative", 0)
        checks.choice(self, "thousands", SEPARATORS)
        checks.text(self, "key")

    def of(self, text: str, references: list[str], where: str) -> float:
        """0 or 1. Raises UserError for a reference without a number."""
        answer = last_number(text, self.thousands)
        wanted = [last_number(reference, self.thousands) for reference in references]
        if None in wanted:
            raise UserError(f"{where}: no number in the reference {references[wanted.index(None)]!r}")
        if answer is None:
            return 0.0
        tolerance, relative = Decimal(str(self.tolerance)), Decimal(str(self.relative))
        near = [abs(answer - one) <= max(tolerance, relative * abs(one)) for one in wanted if one is not None]
        return float(any(near))


def last_number(text: str, thousands: str = "comma") -> Decimal | None:
    """The last number that is written in `text`, or None."""
    between, point = SEPARATORS[thousands]
    pattern = NUMBER.format(t=re.escape(between) if between else "(?!)", d=re.escape(point or ""))
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    match = found[-1]
    digits = match["digits"].replace(between, "") if between else match["digits"]
    value = Decimal(digits.replace(point or "", ".") + (match["power"] or ""))
    return -value if match["sign"] in ("-", "−") else value


ROUGE_VALUES = {"f": "fmeasure", "precision": "precision", "recall": "recall"}


@dataclass
class Rouge(AgainstReference):
    """ROUGE of the completion against a reference, in [0, 1], as the package rouge-score counts it.

    `variant`: rouge1 and rouge2, n-grams in common; rougeL, longest common subsequence of words; rougeLsum, the same
    line by line. `value`: f, the harmonic mean of precision and recall, or one of them. Words are runs of ASCII
    letters and digits.
    """

    variant: str = "rougeL"
    value: str = "f"
    stem: bool = False  # Porter's stemmer first
    key: str = "reference"

    def __post_init__(self) -> None:
        checks.choice(self, "variant", ("rouge1", "rouge2", "rougeL", "rougeLsum"))
        checks.choice(self, "value", ROUGE_VALUES)
        checks.flag(self, "stem")
        checks.text(self, "key")
        self._scorer = checks.package("rouge_score.rouge_scorer", "rouge").RougeScorer([self.variant], self.stem)

    def of(self, text: str, references: list[str], where: str) -> float:
        """In [0, 1]."""
        found = [self._scorer.score(reference, text)[self.variant] for reference in references]
        return max(float(getattr(one, ROUGE_VALUES[self.value])) for one in found)


@dataclass
class Bleu(AgainstReference):
    """Sentence BLEU of the completion against all its references, in [0, 100], as sacrebleu counts it.

    The geometric mean of the n-gram precisions, n = 1 to 4 (fewer where the text has fewer words), times the brevity
    penalty; a precision of 0 is smoothed exponentially. `tokenize`: 13a (the standard), intl, char, zh or none.
    """

    tokenize: str = "13a"
    lowercase: bool = False
    key: str = "reference"

    def __post_init__(self) -> None:
        checks.choice(self, "tokenize", ("13a", "intl", "char", "zh", "none"))
        checks.flag(self, "lowercase")
        checks.text(self, "key")
        metric = checks.package("sacrebleu.metrics", "bleu").BLEU
        self._metric = metric(tokenize=self.tokenize, lowercase=self.lowercase, effective_order=True)

    def of(self, text: str, references: list[str], where: str) -> float:
        """In [0, 100]."""
        return float(self._metric.sentence_score(text, references).score)
