"""The pre-flight report: every check finds its row, and clean data passes."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy.stats import beta

from alignment.data.checks import CheckReport, check, render
from alignment.errors import UserError

GOOD = {"prompt": "Why is it so?", "chosen": "It just is.", "rejected": "No idea."}


class Letters:
    """A tokenizer of one id a character, with the parts of the interface that templates.py uses."""

    chat_template = "given"
    eos_token_id, pad_token_id, all_special_ids = 0, 0, [0]

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        if any(turn["role"] == "tool" for turn in messages):
            raise ValueError("no tools")
        text = "".join(f"{turn['role'][0]}:{turn['content']}\0" for turn in messages)
        return text + ("a:" if add_generation_prompt else "")

    def __call__(self, texts: Any, add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(texts, str):
            return {"input_ids": [ord(character) for character in texts]}
        return {"input_ids": [[ord(character) for character in text] for text in texts]}

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(token) for token in ids if token or not skip_special_tokens)


def put(folder: Path, *rows: dict[str, Any], name: str = "pairs.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def found(report: CheckReport) -> dict[str, list[int]]:
    return {name: [finding.row for finding in rows] for name, rows in report.problems.items() if rows}


def printed(report: CheckReport) -> str:
    console = Console(file=io.StringIO(), width=160)
    render(report, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_clean_data_is_not_wrong(tmp_path: Path) -> None:
    report = check(put(tmp_path, GOOD, {**GOOD, "prompt": "And this?"}))
    assert not report.wrong
    assert (report.rows_read, report.pairs, report.formats) == (2, 2, {"standard": 2})
    assert report.lengths["prompt"].mean == 3.0
    assert (report.lengths["chosen"].mean, report.lengths["rejected"].mean) == (3.0, 2.0)
    assert report.lengths["prompt"].over_limit is None
    assert "nothing wrong" in printed(report)


def test_every_problem_is_found_in_its_row(tmp_path: Path) -> None:
    swapped = {**GOOD, "chosen": GOOD["rejected"], "rejected": GOOD["chosen"]}
    report = check(
        put(
            tmp_path,
            GOOD,
            {**GOOD, "chosen": " "},
            {**GOOD, "rejected": GOOD["chosen"]},
            {"what": "ever"},
            GOOD,
            swapped,
            {**swapped, "system": "You are contrary."},  # under another system text the opposite may be right
            {**GOOD, "prompt": "why  IS it so?"},
        )
    )
    assert found(report) == {
        "bad rows": [4],
        "empty answers": [2],
        "identical answers": [3],
        "duplicate pairs": [5],
        "contradictory pairs": [6],
    }
    assert report.problems["duplicate pairs"][0].note.endswith("pairs.jsonl:1")
    assert report.problems["contradictory pairs"][0].note.endswith("pairs.jsonl:1")
    assert report.wrong
    text = printed(report)
    assert "row 2: chosen is empty" in text
    assert "problems: 5 in 8 rows" in text


def test_labelled_answers_repeat_and_contradict(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "completion": "So.", "label": True}
    report = check(put(tmp_path, row, row, {**row, "label": False}, {**row, "completion": "No."}))
    assert found(report) == {"duplicate pairs": [2], "contradictory pairs": [3]}
    assert report.labelled == 4


def test_equal_answers_among_several(tmp_path: Path) -> None:
    report = check(put(tmp_path, {"prompt": "Why?", "responses": ["a", "b", "a"], "ranks": [1, 2, 3]}))
    assert found(report)["identical answers"] == [1]


def test_rows_none_of_which_is_usable_are_reported(tmp_path: Path) -> None:
    report = check(put(tmp_path, {**GOOD, "chosen": ""}, {**GOOD, "rejected": GOOD["chosen"]}))
    assert found(report) == {"empty answers": [1], "identical answers": [2]}
    assert "problems: 2 in 2 rows" in printed(report)
    with pytest.raises(UserError, match="unknown data format"):
        check(put(tmp_path, {"text": "a"}))


def test_overlap_with_an_evaluation_set(tmp_path: Path) -> None:
    held_out = put(tmp_path, {"prompt": "WHY is\n it so?"}, {"prompt": "Another?"}, name="eval.jsonl")
    train = put(tmp_path, {**GOOD, "prompt": "Mine?"}, {**GOOD, "system": "Be brief."})
    report = check(train, eval_path=held_out)
    assert found(report) == {"prompts in the evaluation set": [2]}
    assert report.problems["prompts in the evaluation set"][0].note == "the same prompt is in eval.jsonl:1"


def test_overlap_of_the_splits_of_one_folder(tmp_path: Path) -> None:
    put(tmp_path, GOOD, name="train.jsonl")
    put(tmp_path, {**GOOD, "prompt": "Other?"}, GOOD, name="test.jsonl")
    assert found(check(tmp_path, eval_path=tmp_path)) == {"prompts in the evaluation set": [1]}


def test_length_bias_has_an_exact_interval(tmp_path: Path) -> None:
    longer = [{**GOOD, "prompt": f"{number}?"} for number in range(9)]
    shorter = {"prompt": "x", "chosen": "a", "rejected": "a b c"}
    level = {"prompt": "y", "chosen": "a b", "rejected": "c d"}
    bias = check(put(tmp_path, *longer, shorter, level)).length_bias
    assert bias is not None
    assert (bias.pairs, bias.share, bias.mean_difference) == (10, 0.9, pytest.approx(7 / 11))
    assert bias.ci95 == pytest.approx((beta.ppf(0.025, 9, 2), beta.ppf(0.975, 10, 1)))  # Clopper-Pearson
    assert check(put(tmp_path, level)).length_bias is None


def test_tokens_and_limits(tmp_path: Path) -> None:
    rows = [
        {"prompt": "abc", "chosen": "12", "rejected": "123456789"},  # u:abc\0a: is 8 tokens, 12\0 is 3
        {"prompt": "abcdef", "chosen": "1", "rejected": "2"},
    ]
    report = check(put(tmp_path, *rows), tokenizer=Letters(), max_prompt_length=8, max_completion_length=6)
    assert report.unit == "tokens"
    assert (report.lengths["prompt"].longest, report.lengths["prompt"].over_limit) == (11, 1)
    assert (report.lengths["rejected"].longest, report.lengths["rejected"].over_limit) == (10, 1)
    assert found(report) == {"prompts over the limit": [2]}
    assert report.problems["prompts over the limit"][0].note == "11 tokens, the limit is 8"
    assert [(f.row, f.note) for f in report.warnings["truncated completions"]] == [
        (1, "an answer of 10 tokens is cut at 6")
    ]
    json.dumps(asdict(report))


def test_truncation_alone_is_a_warning(tmp_path: Path) -> None:
    report = check(put(tmp_path, GOOD), tokenizer=Letters(), max_completion_length=6)
    assert report.warnings["truncated completions"]
    assert not report.wrong


def test_view_of_the_trained_tokens(tmp_path: Path) -> None:
    row = {"prompt": "[red]?", "chosen": "12345", "rejected": "0"}
    report = check(put(tmp_path, row, GOOD), tokenizer=Letters(), max_completion_length=4)
    (pieces,) = report.shown
    parts = {name: "".join(text for text, part in pieces if part == name) for name in ("prompt", "trained", "cut")}
    assert parts == {"prompt": "u:[red]?\0a:", "trained": "1234", "cut": "5\0"}
    assert "[red]?" in printed(report)  # brackets are text, not a colour
    assert check(put(tmp_path, row)).shown == []


def test_judged_answers_are_counted_as_the_view_does(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "completion": "So.", "judgment": "It does not explain.", "satisfactory": False}
    rows = [
        row,
        {**row, "completion": "No.", "judgment": None},
        {**row, "completion": "Hm.", "judgment": "It stops in the"},
        {**row, "completion": "Because.", "judgment": "", "satisfactory": True},
        {"prompt": "Why?", "completion": "Yes.", "judgment": "Good enough", "score": 7},
    ]
    report = check(put(tmp_path, *rows))
    assert report.judged is not None
    assert (report.judged.records, report.judged.satisfactory) == (3, 1)
    assert report.judged.counts == {"no text": 1, "cut judgment": 1, "no verdict": 1}
    assert (report.lengths["judgments"].count, report.lengths["judgments"].mean) == (2, 4.0)
    text = printed(report)
    assert "3 judged answers, 1 satisfactory (33.3%), 1 × no text, 1 × cut judgment, 1 × no verdict" in text
    json.dumps(asdict(report))
    rated = check(put(tmp_path, *rows), satisfied_from=7).judged
    assert rated is not None and (rated.records, rated.satisfactory) == (4, 2)
    counted = check(put(tmp_path, *rows), tokenizer=Letters()).lengths["judgments"]
    assert (counted.longest, counted.over_limit) == (len("It does not explain."), None)
    assert check(put(tmp_path, GOOD)).judged is None


def test_row_that_the_template_refuses_is_a_bad_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "tool", "content": "42"}]
    row = {"prompt": turns, "chosen": [{"role": "assistant", "content": "a"}], "rejected": GOOD["rejected"]}
    report = check(put(tmp_path, row, GOOD), tokenizer=Letters())
    assert found(report) == {"bad rows": [1]}
    assert "no tools" in report.problems["bad rows"][0].note


def test_findings_of_several_files_name_the_file_and_long_lists_are_cut(tmp_path: Path) -> None:
    bad = [{**GOOD, "chosen": ""}] * 30
    files = [str(put(tmp_path, GOOD, *bad, name=f"{name}.jsonl")) for name in "ab"]
    text = printed(check(files))
    assert f"{files[0]}:2: chosen is empty".replace("\n", "") in text.replace("\n", "")
    assert "and 35 more" in text
