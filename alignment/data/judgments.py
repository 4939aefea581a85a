"""What the text of a judgment alone says. Both rules are conservative: they rather miss some than claim one wrongly."""

from __future__ import annotations

import re

_SUBJECT = (
    r"(?:(?:the|this|your) (?:response|answer|output|reply|completion|summary) (?:is|was|looks)"
    r"|(?:it|this|that)(?: is|'s| was| looks)) "
)
_MORE = r"(?:(?:very|quite|all|already|absolutely|completely|entirely|perfectly) )*"
_GOOD = r"(?:perfect|correct|right|accurate|complete|excellent|flawless|good|great|fine|satisfactory)"
_FAULTS = r"(?:weakness(?:es)?|errors?|mistakes?|problems?|issues?|faults?)"
_PRAISE = re.compile(
    rf"(?:{_SUBJECT})?{_MORE}{_GOOD}(?:(?:, and|,| and) {_MORE}{_GOOD})*"
    rf"|(?:there (?:are|is) |i (?:see|find|found) )?no {_FAULTS}(?: (?:were |was )?found)?"
    r"|(?:good|great|nice) (?:job|work)|well done|nothing to critici[sz]e"
)
_CLOSED = ".!?…:;\"'`”’»)]}|*_~>"  # what a whole text ends with; a comma or a dash is none of them
_OPEN_WORDS = frozenset({"a", "an", "the", "and", "or", "but", "of", "to", "in", "with", "by", "from"})
_LONG_LINE = 15  # words: lists, tables, verse and sums, which end without a full stop, have shorter last lines


def only_praise(text: str) -> bool:
    """Whether every sentence of a judgment says that the answer is good, and nothing else.

    A sentence counts when it is, case and punctuation aside, one of a closed set: "Perfect.", "The response is correct
    and complete.", "No errors found.", "Well done!" and the like. "Correct. But it is too long." is not only praise.
    """
    sentences = [part.strip(" \t\"'“”*`").casefold() for part in re.split(r"[.!;\n]+", text)]
    said = [" ".join(sentence.split()) for sentence in sentences if sentence]
    return bool(said) and all(_PRAISE.fullmatch(sentence) for sentence in said)


def cut_off(text: str) -> bool:
    """Whether a judgment stops in the middle of a sentence.

    It does when its last word is one that no sentence ends with ("the", "of", "and", …), or its last line has 15 words
    or more, and no full stop, quotation mark, bracket or other closing sign comes after. A link at the end is whole.
    """
    words = text.rstrip().split("\n")[-1].split()
    if not words or words[-1][-1] in _CLOSED or "://" in words[-1]:
        return False
    return len(words) >= _LONG_LINE or (len(words) > 1 and words[-1].casefold() in _OPEN_WORDS)
