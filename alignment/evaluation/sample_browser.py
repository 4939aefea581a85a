"""Answers side by side for a page: the words in which they differ, and what the page's script filters and sorts by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.evaluation.rounds import changes
from alignment.evaluation.text import NOTHING, decimal, number, shortened, visible

PAGE = 20  # answers on the page at once, as in page.js
MOST = 20_000  # characters of a text that are put into the page
ALIKE = 0.005  # scores closer than this are the same to two decimals: unchanged
# Pairs of one word in both texts up to which differences are looked for. Prose of 700 words has about as many; a text
# that says one thing over and over has far more, and would take minutes.
_PAIRS = 10_000


@dataclass(frozen=True)
class Side:
    """One answer: its text, its length in tokens and its score, the numbers where they are known."""

    text: str
    tokens: float | None = None
    score: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], name: str) -> Side:
        """The side `name` (before or after) of a row of samples.jsonl."""
        text = row.get(name)
        return cls(
            "" if text is None else str(text), number(row.get(f"tokens_{name}")), number(row.get(f"score_{name}"))
        )


def entry(place: int, prompt: Any, sides: Sequence[Side]) -> dict[str, Any]:
    """One prompt and its answers, JSON-ready, texts made visible; every side but the first is held against the first.

    A side's `pieces` are its text cut up: even places are as in the first side, odd ones differ. `changes` has one
    entry for every side but the first, or None where a score is missing.
    """
    texts = [visible(shortened(side.text, MOST)) for side in sides]
    found = [marked(texts[0], text) for text in texts[1:]]
    pieces = [found[0][0] if len(found) == 1 else [texts[0]], *(new for _, new, _ in found)]
    notes = ["", *(note for _, _, note in found)]
    return {
        "place": place,
        "prompt": visible(shortened("" if prompt is None else str(prompt), MOST)),
        "changes": [_change(sides[0].score, side.score) for side in sides[1:]],
        "sides": [
            {"pieces": cut if any(cut) else [], "facts": _facts(side, note), "length": _length(side)}
            for side, cut, note in zip(sides, pieces, notes, strict=True)
        ],
    }


def marked(first: str, second: str) -> tuple[list[str], list[str], str]:
    """Both texts in pieces (even places: in both; odd ones: in this one only), and why nothing is marked, if so."""
    if first == second:
        return [first], [second], "the same text" if first else ""
    old, new = (Counter(re.findall(r"\w+|[^\w\s]", text)) for text in (first, second))
    if sum(count * new[word] for word, count in old.items()) > _PAIRS:
        return [first], [second], "too long to mark"
    found = changes(first, second) if first and second else None
    if found is None:
        return [first], [second], "rewritten" if first and second else ""
    before, after, rest = [""], [""], first
    for what, text in found:
        if what != "new":  # what is in both comes as the second text has it, where white space may differ
            letters = len("".join(text.split()))
            own = re.match(rf"\s*(?:\S\s*){{{letters}}}", rest)
            end = own.end() if own else len(rest)
            _add(before, rest[:end], differs=what == "gone")
            rest = rest[end:]
        if what != "gone":
            _add(after, text, differs=what == "new")
    return before, after, ""


def _add(pieces: list[str], text: str, differs: bool) -> None:
    """Put `text` behind the pieces; white space at its end is never marked."""
    words = text.rstrip() if differs else text
    for part, odd in ((words, differs), (text[len(words) :], False)):
        if part and (len(pieces) % 2 == 0) != odd:
            pieces.append("")
        pieces[-1] += part


def _change(first: float | None, second: float | None) -> dict[str, Any] | None:
    if first is None or second is None:
        return None
    value = number(second - first)  # none where it overflows
    if value is None:
        return None
    tone = "plain" if abs(value) < ALIKE else "good" if value > 0 else "bad"
    return {"value": value, "text": f"change {decimal(value, sign=True)}", "tone": tone}


def _facts(side: Side, note: str) -> str:
    tokens, score = decimal(side.tokens, 0), decimal(side.score, sign=True)
    facts = [f"{tokens} tokens"] if tokens != NOTHING else []
    facts += [f"score {score}"] if score != NOTHING else []
    return ", ".join([*facts, note] if note else facts)


def _length(side: Side) -> float:
    """Tokens, or characters where they were not counted."""
    return len(side.text) if side.tokens is None else side.tokens
