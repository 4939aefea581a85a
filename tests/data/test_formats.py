"""Which format a row is in, and what becomes of it."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.formats.common import RowError
from alignment.data.formats.registry import BY_NAME, ORDER, choose, parse_row
from tests.data.rows import BAD, CASES, Case


@pytest.mark.parametrize("case", CASES, ids=[f"{index}-{case[0]}" for index, case in enumerate(CASES)])
def test_row_is_detected_and_parsed(case: Case) -> None:
    name, row, prompt, answers, p_first = case
    before = json.dumps(row)
    found, (example, *_) = parse_row(row)
    assert found == name
    assert example.prompt == prompt
    assert [response.text for response in example.responses] == answers
    assert (example.preferences[0].p_first if example.preferences else None) == p_first
    assert json.dumps(row) == before  # the row itself is left alone
    assert parse_row(row, choose(name))[1][0] == example  # by name of its format, too


def test_every_format_has_a_case_and_a_description() -> None:
    assert {case[0] for case in CASES} == set(BY_NAME)
    assert all(module.DESCRIPTION and "\n" not in module.DESCRIPTION for module in ORDER)
    assert len({module.NAME for module in ORDER}) == len(ORDER)


@pytest.mark.parametrize(("row", "kind", "reason"), BAD, ids=range(len(BAD)))
def test_bad_row_says_why(row: dict[str, Any], kind: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(row)
    assert caught.value.kind == kind
    assert reason in caught.value.reason


def test_every_row_of_the_documentation_is_what_its_heading_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data_formats.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (\w+)\n.*?^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in sections] == list(BY_NAME)  # in the order of detection
    for name, rows in sections:
        for row in rows.splitlines():
            assert parse_row(json.loads(row))[0] == name, row


def test_row_of_another_format_than_the_named_one() -> None:
    with pytest.raises(RowError, match="not in the format 'hh'") as caught:
        parse_row({"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}, choose("hh"))
    assert caught.value.kind == "unknown format"


def _example(name: str, index: int = 0) -> Any:
    return parse_row([case for case in CASES if case[0] == name][index][1])[1][0]


def test_fields_that_are_not_used_are_kept() -> None:
    row = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No.", "task": "x", "nothing": None}
    assert parse_row(row)[1][0].meta == {"fields": {"task": "x"}}


def test_ultrafeedback_scores() -> None:
    binarised = _example("ultrafeedback")
    assert [response.score for response in binarised.responses] == [8.0, 2.0]
    assert binarised.preferences[0].margin == 6.0
    rated = _example("ultrafeedback", 2)
    assert [response.score for response in rated.responses] == [4.5, 3.0]  # mean of the aspects; overall without any
    assert rated.responses[1].judgments[0].text == "Too short."
    assert rated.responses[0].source == "a"


def test_labels_and_judgments() -> None:
    assert _example("sharegpt", 1).responses[0].desirable is True
    assert _example("unpaired", 1).responses[0].desirable is False
    assert _example("unpaired", 3).responses[0].desirable is None
    assert _example("labelled_answers").responses[0].desirable is True
    assert _example("labelled_answers", 1).responses[0].desirable is True  # to refuse an unsafe prompt
    judgment = _example("cut").responses[0].judgments[0]
    assert (judgment.text, judgment.satisfactory) == (None, True)
    criticised = parse_row({"instruction": "Why?", "output": "Yes.", "judgment": "Too short."})[1][0]
    assert criticised.responses[0].judgments[0].satisfactory is False
    graded = _example("grading", 2).responses[0]
    assert (graded.score, [judgment.text for judgment in graded.judgments]) == (4.0, ["a", "b", "c"])
    assert _example("ratings").responses[0].score == 6.0


@pytest.mark.parametrize(
    ("judgment", "score", "satisfactory"),
    [
        (None, None, True),
        ("", None, True),
        ("nan", None, True),
        (None, 3, True),  # the authors look at the score only where there is a judgment
        ("Too short.", None, False),
        ("The response is perfect.", None, True),
        ("Too short.", 6.9, False),
        ("Too short.", 7, True),
        ("The response is perfect.", 3, False),
    ],
)
def test_cut_verdicts_are_the_authors(judgment: str | None, score: float | None, satisfactory: bool) -> None:
    row = {"instruction": "Why?", "input": "", "output": "Yes.", "judgment": judgment, "score": score}
    (response,) = parse_row(row)[1][0].responses
    assert response.judgments[0].satisfactory is satisfactory
    assert response.score == score


def test_critiques_with_verdicts_scores_and_labels() -> None:
    def notes(index: int) -> list[tuple[str | None, bool | None]]:
        return [(note.text, note.satisfactory) for note in _example("critiques", index).responses[0].judgments]

    assert notes(0) == [("Hm.", None)]
    assert notes(2) == [("Short.", None)]
    assert _example("critiques", 2).responses[0].score == 3.0
    assert notes(3) == [(None, True)]
    assert notes(4) == [("Fine.", False)]
    assert (notes(5), _example("critiques", 5).responses[0].score) == ([("Short.", None)], 2.0)
    labelled = {"prompt": "Why?", "completion": "Yes.", "label": False, "feedback": "Short."}
    (response,) = parse_row(labelled)[1][0].responses
    assert (response.desirable, response.judgments[0].satisfactory) == (False, False)


def test_justification_of_a_choice_judges_both_answers() -> None:
    row = {
        "question": "Why?",
        "answer_a": "So.",
        "answer_b": "No.",
        "overall_preference": -1,
        "justification": "B errs.",
    }
    first, second = parse_row(row)[1][0].responses
    assert [(note.text, note.satisfactory) for note in first.judgments + second.judgments] == [
        ("B errs.", True),
        ("B errs.", False),
    ]


def test_fine_grained_comparisons_and_spans() -> None:
    example = _example("fine_grained")
    found = [(p.first, p.second, p.p_first) for p in example.preferences]
    assert found == [
        (0, 1, 0.0), (0, 2, 1.0), (0, 3, 0.5), (1, 2, 1.0), (1, 3, 1.0), (2, 3, 1.0), (4, 0, 1.0),
    ]  # fmt: skip
    assert example.responses[0].judgments[0].text == "Redundant: 'Answer'"
    assert example.responses[0].judgments[0].satisfactory is False


def test_tree_ranks_become_preferences_and_every_prompter_turn_an_example() -> None:
    reply = {"role": "prompter", "text": "How?", "replies": []}
    tree = {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "Why?", "replies": []}}
    tree["prompt"]["replies"] = [  # type: ignore[index]
        {"role": "assistant", "text": "A", "rank": 0, "replies": [reply]},
        {"role": "assistant", "text": "B", "rank": 1, "replies": []},
        {"role": "assistant", "text": "C", "rank": None, "replies": []},
    ]
    first, second = parse_row(tree)[1]
    assert [(p.first, p.second, p.p_first) for p in first.preferences] == [(0, 1, 1.0)]
    assert [turn["content"] for turn in second.prompt] == ["Why?", "A", "How?"]
    assert second.responses == []


def test_several_annotators_are_several_preferences() -> None:
    row = {
        "instruction": "Why?",
        "response1": "Yes.",
        "response2": "No.",
        "annotator1": 1,
        "annotator2": 2,
        "annotator3": 0,
    }
    assert [preference.p_first for preference in parse_row(row)[1][0].preferences] == [1.0, 0.0, 0.5]


def test_example_record_keeps_no_verdict() -> None:
    row = {
        "prompt": [{"role": "user", "content": "Why?"}],
        "responses": [{"messages": [{"role": "assistant", "content": text}]} for text in ("a", "b")],
        "preferences": [{"first": 0, "second": 1, "p_first": None}],
        "meta": '{"note": 1}',
    }
    example = parse_row(row)[1][0]
    assert math.isnan(example.preferences[0].p_first)
    assert example.meta == {"note": 1}


_KEYS = sorted({key for _, row, *_ in CASES for key in row} | {key for row, *_ in BAD for key in row})
_INNER = [
    "role",
    "content",
    "from",
    "value",
    "text",
    "response",
    "answer",
    "rank",
    "replies",
    "messages",
    "score_chosen",
]
_WORDS = st.sampled_from(
    ["", " ", "nan", "Yes", "No", "assistant", "user", "\n\nHuman: a\n\nAssistant: b", "Human:", "1", "tie"]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_INNER), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=6))
def test_no_row_raises_anything_but_a_row_error(row: dict[str, Any]) -> None:
    for name in ("auto", *BY_NAME):
        try:
            found, examples = parse_row(row, choose(name))
        except RowError as error:
            assert error.reason
        else:
            assert found in BY_NAME
            assert all(example.prompt for example in examples)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(CASES), st.sampled_from(_INNER + _KEYS), _VALUES, st.data())
def test_a_spoilt_good_row_raises_nothing_else_either(case: Case, key: str, value: Any, data: st.DataObject) -> None:
    row = dict(case[1])
    row[data.draw(st.sampled_from(sorted(row))) if data.draw(st.booleans()) else key] = value
    try:
        parse_row(row)
    except RowError as error:
        assert error.reason


def test_detection_does_not_depend_on_hash_order_nor_on_the_order_of_fields() -> None:
    code = (
        "from tests.data.rows import CASES\n"
        "from alignment.data.formats.registry import parse_row\n"
        "for _, row, *_ in CASES: print(parse_row(dict(reversed(row.items()))))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    for line, case in zip(said.pop().splitlines(), CASES, strict=True):
        assert line.startswith(f"('{case[0]}', ")
