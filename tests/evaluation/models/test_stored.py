"""Stored answers beside the prompts they answer: what is matched, counted and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.evaluation.models.contestants import contestants
from alignment.evaluation.models.prompts import load_prompts
from alignment.evaluation.models.stored import stored_answers
from tests.evaluation.models.made import prompts, write_rows

ASKED = prompts("one", "two", "three")


def read(file: str, n: int = 1) -> list[list[str]]:
    (one,) = contestants([file])
    return [[said.text for said in row] for row in stored_answers(one, ASKED, n).said]


def test_answers_are_matched_by_their_prompts_in_any_order(tmp_path: Path) -> None:
    rows = [
        {"prompt": "three", "completion": "c"},
        {"prompt": "one", "completion": "a"},
        {"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "b"}]},
    ]
    file = write_rows(tmp_path / "x.jsonl", rows)
    assert read(file) == [["a"], ["b"], ["c"]]
    (one,) = contestants([file])
    assert stored_answers(one, ASKED, 1).notes == []


def test_what_is_missing_or_cannot_be_read_is_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one", "completion": "a"},
        {"prompt": "one", "completion": "a"},  # the same again says nothing new
        {"prompt": "two", "completion": ""},
        {"prompt": "elsewhere", "completion": "x"},
    ]
    (one,) = contestants([write_rows(tmp_path / "x.jsonl", rows)])
    found = stored_answers(one, ASKED, 1)
    assert [len(row) for row in found.said] == [1, 0, 0] and found.missing == 2
    first, second, third = (note.partition(".jsonl: ")[2] for note in found.notes)
    assert first == "no answer to 2 of 3 prompts"
    assert second == "rows that cannot be read: 1 (row 3: completion is empty)"
    assert third == "prompts that were not asked, left out: 1"


def test_a_file_of_other_prompts_is_refused(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl", [{"prompt": "One", "completion": "a"}])
    with pytest.raises(UserError, match="answers none of the 3 prompts of made, such as 'one'"):
        read(file)


def test_several_answers_to_a_prompt(tmp_path: Path) -> None:
    twice = [{"prompt": "one", "completion": "a"}, {"prompt": "two", "completion": "x"}]
    twice += [{"prompt": "one", "completion": "b"}]
    file = write_rows(tmp_path / "x.jsonl", twice)
    with pytest.raises(UserError, match=r"rows 1 and 3 answer one prompt differently.*(-n 1).*\n.*-n 2 for all"):
        read(file)
    assert read(file, n=2) == [["a", "b"], ["x"], []]
    own = {"prompt": [{"role": "user", "content": "one"}]}
    said = [{"messages": [{"role": "assistant", "content": text}], "source": who} for text, who in ("am", "bm", "cn")]
    record = write_rows(tmp_path / "y.jsonl", [{**own, "responses": said}])
    assert read(f"{record}#m") == [["a"], [], []] and read(f"{record}#m", n=3) == [["a", "b"], [], []]
    assert read(f"{record}#n") == [["c"], [], []]
    with pytest.raises(UserError, match=r"answers of several models \(m, n, …\)\nMend: .*y.jsonl#m"):
        read(record)
    with pytest.raises(UserError, match="holds no answers of 'o'; there are m, n"):
        read(f"{record}#o")


def test_one_id_with_two_prompts_is_refused(tmp_path: Path) -> None:
    rows = [{"id": 7, "prompt": text, "completion": "a"} for text in ("one", "two")]
    with pytest.raises(UserError, match="rows 1 and 2 have the id 7 and different prompts"):
        read(write_rows(tmp_path / "x.jsonl", rows))
    rows[1]["prompt"] = "one"  # an answer that stands there twice
    assert read(write_rows(tmp_path / "y.jsonl", rows)) == [["a"], [], []]


def test_prompt_sets(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{number}", "completion": "a", "gold": str(number)} for number in range(6)]
    file = write_rows(tmp_path / "x.jsonl", [*rows, rows[0]])
    whole = load_prompts(file, answer_field="gold")
    assert len(whole) == 6 and "1 repeated prompts" in whole.read
    assert [known["reference"] for known in whole.contexts] == list("012345")
    some = load_prompts(file, limit=3, seed=1)
    assert len(some) == 3 and set(some.keys) < set(whole.keys)
    assert some.prompts == load_prompts(file, limit=3, seed=1).prompts
    with pytest.raises(UserError, match="--answer-field golf: no row of .* has it; did you mean gold"):
        load_prompts(file, answer_field="golf")
    with pytest.raises(UserError, match="limit=0"):
        load_prompts(file, limit=0)
