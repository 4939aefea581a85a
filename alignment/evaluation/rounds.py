"""The rounds of improved answers on a terminal, with what each round changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from alignment.data.example import Example
from alignment.evaluation.text import decimal, shortened, visible

MOST = 1500  # characters of a text that are shown
ALIKE = 0.5  # share of words in common from which on a change is shown word by word
_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")

Change = tuple[str, str]  # ("same" | "gone" | "new", text)


def changes(before: str, after: str) -> list[Change] | None:
    """`before` turned into `after` by whole words, in order; None where too little is left of it: it is rewritten.

    A single word between two changes counts as changed, too.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], False)
    if matcher.ratio() < ALIKE:
        return None
    found: list[Change] = []
    gone: list[str] = []
    fresh: list[str] = []

    def flush() -> None:
        found.extend((what, "".join(words)) for what, words in (("gone", gone), ("new", fresh)) if words)
        gone.clear()
        fresh.clear()

    for what, i, j, start, stop in matcher.get_opcodes():
        if what == "equal" and (stop - start > 1 or not (gone or fresh) or stop == len(new)):
            flush()
            found.append(("same", "".join(new[start:stop])))
        else:
            gone += old[i:j]
            fresh += new[start:stop]
    flush()
    return found


def print_rounds(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print each record of `align improve`: the answer as it was, and what every round made of it.

    What is new is green and what is gone red; without colour they stand in {+…+} and [-…-].
    """
    for place, record in enumerate(records, 1):
        example = Example.from_dict(record)
        prompt = "\n".join(message["content"] for message in example.prompt)
        console.print(Text(f"{place}  ", style="bold").append(_shown(prompt), style="bold"))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column()
        for label, content in _lines(example, colour=console.color_system is not None):
            grid.add_row(label, content)
        console.print(Padding(grid, (0, 0, 1, 3)))


def _lines(example: Example, colour: bool) -> Iterator[tuple[str, Any]]:
    note = example.meta["improved"]
    original = note["original"]
    answer = "" if original is None else example.responses[original].text
    label = "answered" if "answered_first" in note else "given"
    yield label, Text(_shown(answer)) if answer else Text("nothing", style="dim")
    last = None
    for number, each in enumerate(note["rounds"], 1):
        text = None if each["response"] is None else example.responses[each["response"]].text
        yield f"round {number}", _round(each, answer, text, colour)
        if each["kept"] and text is not None:
            answer, last = text, number
    kept = "the answer as it was" if last is None else f"round {last}"
    yield "kept", Text(f"{kept} · ended: {note['stopped']}", style="dim")


def _round(each: Mapping[str, Any], answer: str, text: str | None, colour: bool) -> Group:
    """The answer of a round, marked against the one that it was made from, and the line below it."""
    critique = [Text(_shown(each["critique"]), style="italic dim")] if each.get("critique") else []
    if text is None:
        return Group(*critique, Text("no text", style="dim"), _facts(each))
    if text == answer:
        return Group(*critique, Text(_shown(text)), _facts(each, "the same answer"))
    found = changes(_shown(answer), _shown(text))
    if found is None:
        return Group(*critique, Text(_shown(text)), _facts(each, "rewritten"))
    return Group(*critique, _marked(found, colour), _facts(each))


def _marked(found: Sequence[Change], colour: bool) -> Text:
    marked = Text()
    for what, text in found:
        words = text.rstrip()
        if what == "same":
            marked.append(text)
            continue
        if what == "gone" and text[:1].isalnum() and marked.plain and not marked.plain[-1].isspace():
            marked.append(" ")  # what it stood behind is the end of the new text
        if colour:
            marked.append(words, style="green" if what == "new" else "red strike")
        else:
            marked.append(f"{{+{words}+}}" if what == "new" else f"[-{words}-]")
        marked.append(text[len(words) :] or (" " if what == "gone" else ""))
    return marked


def _facts(each: Mapping[str, Any], *more: str) -> Text:
    facts = Text("kept" if each["kept"] else "not kept", style="green" if each["kept"] else "yellow")
    parts = [*more]
    if each["gap"] is not None:
        unchanged = decimal(each["over_itself"], sign=True)
        parts.append(f"gap {decimal(each['gap'], sign=True)} (unchanged: {unchanged})")
    parts.append(f"{each['tokens']} tokens")
    parts += ["cut at max_new_tokens"] if each["cut"] else []
    parts += ["the end of the answer was not seen"] if each["reference_cut"] else []
    return facts.append("".join(f" · {part}" for part in parts), style="dim")


def _shown(text: str) -> str:
    return shortened(visible(text).strip(), MOST)
