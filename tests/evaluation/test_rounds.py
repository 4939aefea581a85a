"""Rounds on a terminal: what counts as changed, and text that must not drive the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from alignment.evaluation.rounds import changes, print_rounds


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("A red pear.", "A red pear.", [("same", "A red pear.")]),
        ("A red pear.", "A ripe pear.", [("same", "A "), ("gone", "red "), ("new", "ripe "), ("same", "pear.")]),
        ("A pear.", "A ripe pear.", [("same", "A "), ("new", "ripe "), ("same", "pear.")]),
        (
            "One two red three four five.",
            "One two blue three green five.",  # the single word between two changes goes with them
            [("same", "One two "), ("gone", "red three four "), ("new", "blue three green "), ("same", "five.")],
        ),
        ("It mirrors the sea.", "Air scatters short waves.", None),
        ("", "A pear.", None),
    ],
)
def test_changes_by_words(before: str, after: str, found: Any) -> None:
    assert changes(before, after) == found


WORDS = st.lists(st.sampled_from(["a", "pear", "is", "ripe,", "red.", "x\ny"]), min_size=1, max_size=12).map(" ".join)


@given(WORDS, WORDS)
def test_the_marked_text_is_the_new_text(before: str, after: str) -> None:
    found = changes(before, after)
    if found is not None:
        assert "".join(text for what, text in found if what != "gone") == after
        gone = "".join(text for what, text in found if what != "new").split()
        assert "".join(gone) == "".join(before.split())


def record(answer: str | None, rounds: list[tuple[str | None, bool]], **note: Any) -> dict[str, Any]:
    said = [answer, *(text for text, _ in rounds)]
    responses = [{"messages": [{"role": "assistant", "content": text}]} for text in said if text is not None]
    place = 0 if answer is None else 1
    notes = []
    for text, kept in rounds:
        own = {"response": None if text is None else place, "kept": kept, "gap": 1.5, "over_itself": 0.25}
        notes.append({**own, "tokens": 7, "cut": True, "reference_cut": False})
        place += text is not None
    improved = {"original": None if answer is None else 0, "rounds": notes, "stopped": "no text", **note}
    prompt = [{"role": "user", "content": "Name\x1b[31m [bold]a fruit.[/bold]"}]
    return {"prompt": prompt, "responses": responses, "meta": {"improved": improved}}


def printed(*records: dict[str, Any], colour: bool = False) -> str:
    out = io.StringIO()
    print_rounds(
        records, Console(file=out, width=100, force_terminal=colour, color_system="standard" if colour else None)
    )
    return out.getvalue()


def test_every_round_with_its_numbers() -> None:
    shown = printed(record("A red pear.", [("A ripe pear.", True), (None, False)]))
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[0] == "1  Name<U+001B>[31m [bold]a fruit.[/bold]"
    assert "given    A red pear." in lines
    assert "round 1  A [-red-] {+ripe+} pear." in lines
    assert "kept · gap +1.50 (unchanged: +0.25) · 7 tokens · cut at max_new_tokens" in lines
    assert "round 2  no text" in lines
    assert "kept     round 1 · ended: no text" in lines


def test_what_is_rewritten_and_what_stays_is_said() -> None:
    shown = printed(
        record(None, [("A pear.", True), ("A pear.", True)], answered_first={}), record("A pear.", [("No.", False)])
    )
    assert "answered  nothing" in shown and "the same answer" in shown and "rewritten" in shown
    assert "the answer as it was" in shown and "[-" not in shown


def test_what_is_gone_from_the_end_stands_apart_and_a_critique_is_shown() -> None:
    row = record("One two three four. Five six.", [("One two three four.", True)])
    row["meta"]["improved"]["rounds"][0]["critique"] = "Too much of it."
    shown = printed(row)
    assert "One two three four. [-Five six.-]" in shown and "Too much of it." in shown


def test_colour_takes_the_place_of_brackets() -> None:
    shown = printed(record("A red pear.", [("A ripe pear.", True)]), colour=True)
    assert "\x1b[32mripe" in shown and "[-red-]" not in shown and "\x1b[31m [bold]" not in shown
