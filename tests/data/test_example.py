"""The record: round trips, ids, and storage in Arrow."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.example import Example, Judgment, Preference, Response, content_id
from alignment.data.examples import Examples

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_MAYBE = st.none() | _TEXT
_NUMBER = st.none() | st.floats(allow_nan=False, width=64)
_MESSAGES = st.lists(st.fixed_dictionaries({"role": _TEXT, "content": _TEXT}), min_size=1, max_size=3)
_JUDGMENTS = st.lists(
    st.builds(Judgment, text=_MAYBE, satisfactory=st.none() | st.booleans(), annotator=_MAYBE), max_size=2
)
_RESPONSES = st.lists(
    st.builds(
        Response,
        messages=_MESSAGES,
        score=_NUMBER,
        desirable=st.none() | st.booleans(),
        judgments=_JUDGMENTS,
        source=_MAYBE,
    ),
    max_size=3,
)
_PREFERENCES = st.lists(
    st.builds(
        Preference,
        first=st.integers(0, 9),
        second=st.integers(0, 9),
        p_first=st.floats(0, 1),
        margin=_NUMBER,
    ),
    max_size=3,
)
_META = st.dictionaries(
    _TEXT, st.none() | st.booleans() | st.integers() | _TEXT | st.lists(st.integers(), max_size=2), max_size=3
)
EXAMPLES: st.SearchStrategy[Example] = st.builds(
    Example, prompt=_MESSAGES, responses=_RESPONSES, preferences=_PREFERENCES, meta=_META
)


@settings(derandomize=True, deadline=None)
@given(EXAMPLES)
def test_dictionary_round_trip(example: Example) -> None:
    record = example.to_dict()
    assert Example.from_dict(json.loads(json.dumps(record))) == example
    record["prompt"][0]["content"] += "!"
    assert record["prompt"] != example.prompt  # nothing is shared with the example


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(EXAMPLES, max_size=4))
def test_arrow_round_trip(examples: list[Example]) -> None:
    stored = Examples.write(iter(examples))
    assert len(stored) == len(examples)
    assert list(stored) == examples
    assert [stored[index] for index in range(len(examples))] == examples


def numbered(count: int) -> Examples:
    return Examples.write(
        Example([{"role": "user", "content": str(number)}], meta={"n": number}) for number in range(count)
    )


def _numbers(examples: Examples) -> list[int]:
    return [example.meta["n"] for example in examples]


def test_no_verdict_survives_storage() -> None:
    stored = Examples.write([Example([], [], [Preference(0, 1, math.nan)])])
    assert math.isnan(stored[0].preferences[0].p_first)


def test_selecting_and_shuffling() -> None:
    examples = numbered(10)
    assert _numbers(examples.select([3, 1])) == [3, 1]
    assert _numbers(examples[2:5]) == [2, 3, 4]
    assert examples[-1].meta["n"] == 9
    assert _numbers(examples.filter(lambda example: example.meta["n"] % 4 == 0)) == [0, 4, 8]
    shuffled = _numbers(examples.shuffle(3))
    assert sorted(shuffled) == list(range(10)) != shuffled
    assert _numbers(examples.shuffle(3)) == shuffled
    with pytest.raises(IndexError):
        examples[10]


def test_a_selection_outlives_what_it_was_taken_from() -> None:
    selection = numbered(5).shuffle(0).select([0, 1])
    assert len(_numbers(selection)) == 2


def test_the_rows_are_in_a_file_that_goes_with_its_last_user(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    examples = numbered(3)
    assert [file.name for file in tmp_path.rglob("*.arrow")] == ["examples.arrow"]
    del examples
    assert list(tmp_path.rglob("*.arrow")) == []


def test_id_is_of_the_content_alone() -> None:
    prompt = [{"role": "user", "content": "Why?"}]
    example = Example(prompt, [Response.of("Yes.")], meta={"row": 1})
    assert content_id(example) == "a46e32764266" == content_id(Example(prompt, [Response.of("Yes.", score=2.0)]))
    assert content_id(Example(prompt, [Response.of("Yes. ")])) != content_id(example)
    assert len(content_id(example)) == 12
