"""Judged answers whose errors are known: what colour a thing is, and a judgment that names a wrong colour."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alignment.data.example import Example, Judgment, Message, Response
from alignment.data.views import Judged
from alignment.feedback.protocols import Context, Critic, Prompts

COLOURS = ("red", "blue", "green", "black", "white", "brown")
THINGS = (
    *("hat", "door", "car", "box", "cup", "bag", "shoe", "boat", "chair", "table", "bike", "coat"),
    *("ball", "house", "bed", "book", "dress", "phone", "shirt", "wall", "kite", "lamp", "plate", "tent"),
)
HELD_OUT = 8  # of the things, the last ones
TOKENS = 12  # of an answer


def asked(thing: str, colour: str) -> list[Message]:
    return [{"role": "user", "content": f"My {thing} is {colour}. What is its colour?"}]


def judged(thing: str, colour: str, said: str) -> Judged:
    """An answer that says one colour of a thing that has another, or the same."""
    text = f"The colour is {said}."
    start = text.index(said)
    meta = {"wrong": [start, start + len(said)], "right": f"The colour is {colour}."} if said != colour else {}
    answer = [{"role": "assistant", "content": text}]
    judgment = f"{said} is wrong." if meta else None
    return Judged(f"{thing}-{colour}-{said}", asked(thing, colour), answer, judgment, not meta, meta)


def records(things: Sequence[str]) -> list[Judged]:
    """A right and a wrong answer about every thing in every colour."""
    found = []
    for number, thing in enumerate(things):
        for place, colour in enumerate(COLOURS):
            other = COLOURS[(place + 1 + number % (len(COLOURS) - 1)) % len(COLOURS)]
            found += [judged(thing, colour, colour), judged(thing, colour, other)]
    return found


def careless(found: Sequence[Judged], every: int) -> list[Judged]:
    """Every so many of the wrong answers, taken for right ones: what makes a model err."""
    wrong = [record for record in found if not record.satisfactory][::every]
    return [Judged(f"{record.id} again", record.prompt, record.completion, None, True) for record in wrong]


def prompts(things: Sequence[str]) -> list[list[Message]]:
    return [asked(thing, colour) for thing in things for colour in COLOURS]


def as_example(record: Judged) -> Example:
    """The record as it stands in a file."""
    judgment = Judgment(record.judgment, record.satisfactory)
    return Example(
        record.prompt, [Response(record.completion, judgments=[judgment])], meta={"id": record.id, **record.meta}
    )


def is_right(prompt: Sequence[Message], text: str) -> bool:
    """Whether the answer names the thing's colour and no other one."""
    return named(text) == named(prompt[-1]["content"])


def named(text: str) -> set[str]:
    """The colours in a text."""
    return set(re.findall("[a-z]+", text.lower())) & set(COLOURS)


class ColourCritic(Critic):
    """Names the wrong colours; satisfied with an answer that has the right one alone."""

    def review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]:
        """One judgment for each completion."""
        found = []
        for prompt, text in zip(prompts, completions, strict=True):
            wrong = sorted(named(text) - named(prompt[-1]["content"]))
            said = f"{' and '.join(wrong)} is wrong." if wrong else "It does not say the colour."
            found.append(Judgment(None, True) if is_right(prompt, text) else Judgment(said, False))
        return found
