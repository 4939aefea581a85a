"""Reading a reply: the verdict stands on a line that begins with the request's mark, and is read from nowhere else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

DECORATION = " \t\r*_`#>\"'.,;()[]{}<"  # what models put around a word: bold, quotes, brackets, a full stop
LIST_SIGN = DECORATION + "-0123456789"  # … and before a line: the number or the dash of a list


@dataclass(frozen=True)
class Reply:
    """What a model wrote. `failure` says why there is no text, or why the text is not to be read."""

    text: str | None
    failure: str | None = None


def marked_lines(text: str, line: str) -> list[str]:
    """What follows `line` on every line of `text` that begins with it, without decoration."""
    found = []
    for each in text.split("\n"):
        before, there, after = each.partition(line)
        if there and not before.strip(LIST_SIGN):
            found.append(after.strip(DECORATION))
    return found


def before_verdict(text: str, line: str) -> str:
    """What was written before the first line that begins with `line`."""
    kept: list[str] = []
    for each in text.split("\n"):
        if marked_lines(each, line):
            break
        kept.append(each)
    return "\n".join(kept).strip()


def read_words(reply: Reply, line: str, words: Collection[str], count: int = 1) -> tuple[list[str] | None, str | None]:
    """The verdict of `reply`: `count` of the `words`; or None, and why there is none.

    Several verdict lines must say the same; lines that hold no verdict, such as the instruction repeated, do not count
    beside one that does.
    """
    if reply.text is None or reply.failure is not None:
        return None, reply.failure or "empty answer"
    exact = {word.casefold(): word for word in words}
    lines = [[part.strip(DECORATION).casefold() for part in found.split()] for found in marked_lines(reply.text, line)]
    if not lines:
        return None, "no verdict line"
    found = {tuple(line) for line in lines if len(line) == count and all(word in exact for word in line)}
    if len(found) == 1:
        return [exact[word] for word in found.pop()], None
    return None, "several verdicts" if found else "unknown verdict word"
