"""The built-in data set `planted`: one wrong place an answer, solvable prompts, judgments that name what is wrong."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import alignment
from alignment.data.judged_view import judged
from alignment.data.judgments import only_praise
from alignment.data.readers import load_examples

FOLDER = Path(alignment.__file__).parent / "data" / "builtin_sets" / "planted"
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


ROWS = rows("train") + rows("test")
WRONG = [row for row in ROWS if "wrong" in row["meta"]]


def prompt_of(row: dict[str, Any]) -> str:
    return row["prompt"][0]["content"]


def answer_of(row: dict[str, Any]) -> str:
    return row["responses"][0]["messages"][0]["content"]


def judgment_of(row: dict[str, Any]) -> Any:
    return row["responses"][0]["judgments"][0]["text"]


def places(row: dict[str, Any]) -> tuple[str, str]:
    """(what stands at the planted place, what belongs there)."""
    start, end = row["meta"]["wrong"]
    answer, right = answer_of(row), row["meta"]["right"]
    return answer[start:end], right[start : len(right) - (len(answer) - end)]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/make_planted.py as a module."""
    path = SCRIPTS / "make_planted.py"
    if not path.exists():
        pytest.skip("the scripts are not part of an installed wheel")
    spec = importlib.util.spec_from_file_location("make_planted", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_no_prompt_stands_there_twice() -> None:
    assert (len(rows("train")), len(rows("test"))) == (340, 120)
    assert len({prompt_of(row) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("split", "satisfactory"), [("train", 68), ("test", 24)])
def test_the_view_takes_every_row(split: str, satisfactory: int) -> None:
    loaded = load_examples("planted", split=split)
    records, counts = judged(loaded.examples)
    assert (loaded.report.skipped, counts) == ([], {})
    assert len(records) == len(rows(split))
    assert sum(record.satisfactory for record in records) == satisfactory
    assert all(("wrong" in record.meta) != record.satisfactory for record in records)


def test_the_answer_differs_from_the_right_one_at_the_planted_place_alone() -> None:
    for row in WRONG:
        (start, end), answer, right = row["meta"]["wrong"], answer_of(row), row["meta"]["right"]
        wrong, belongs = places(row)
        assert wrong and belongs and wrong != belongs
        assert right == answer[:start] + belongs + answer[end:]
        for edge in (answer[start - 1 : start] + wrong[0], wrong[-1] + answer[end : end + 1]):
            assert re.search(r"\W", edge) or len(edge) == 1 or "password" in answer  # whole words
        assert len(re.findall(rf"(?<!\w){re.escape(wrong)}(?!\w)", answer)) == 1 or "password" in answer


def test_every_judgment_names_what_is_wrong() -> None:
    for row in WRONG:
        assert places(row)[0].casefold() in judgment_of(row).casefold()
        assert not only_praise(judgment_of(row))
    for row in ROWS:
        if "wrong" not in row["meta"] and judgment_of(row) is not None:
            assert only_praise(judgment_of(row))


def test_what_belongs_in_the_answer_follows_from_the_prompt() -> None:
    for row in WRONG:
        if row["meta"]["kind"] != "arithmetic" and row["meta"]["error"] != "negation":
            assert places(row)[1] in prompt_of(row)
        if row["meta"]["error"] == "number":
            assert int(places(row)[0]) >= 2


def test_the_sums_in_the_judgments_are_right() -> None:
    checked = 0
    for row in WRONG:
        said = judgment_of(row)
        for left, result in re.findall(r"(\d+(?: [-+×] \d+)+) is (\d+)", said):
            assert eval(left.replace("×", "*")) == int(result), said
            checked += 1
        for whole, part, result in re.findall(r"(\d+) divided by (\d+) is (\d+)", said):
            assert int(whole) == int(part) * int(result), said
            checked += 1
        for times, number, result in re.findall(r"(half of|twice) (\d+)(?: km)? is (\d+)", said):
            assert int(result) == (int(number) // 2 if times == "half of" else 2 * int(number)), said
            checked += 1
    assert checked > 90


def test_kinds_and_errors_are_spread() -> None:
    kinds = Counter(row["meta"]["kind"] for row in ROWS)
    assert kinds == pytest.approx({"arithmetic": 184, "facts": 184, "how-to": 92}, abs=2)
    errors = Counter(row["meta"]["error"] for row in WRONG)
    assert set(errors) == {"number", "name", "negation"} and min(errors.values()) > 60


def test_the_english_is_whole() -> None:
    for row in ROWS:
        for text in (prompt_of(row), answer_of(row), judgment_of(row) or "Fine."):
            assert text == text.strip() and "  " not in text
            assert not re.search(r"[{}<>~|]", text)
            assert text[0].isupper() or text[0].isdigit() or text[0] == '"'
            assert text[-1] in ".?"
            assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiou]", text), text


def test_the_script_makes_the_files_again(script: ModuleType) -> None:
    made = script.make(340, 120, seed=0)
    assert made == {"train": rows("train"), "test": rows("test")}
    assert script.make(20, 5, seed=1) == script.make(20, 5, seed=1) != script.make(20, 5, seed=2)


def test_every_wording_of_the_script_can_be_filled(script: ModuleType) -> None:
    import yaml

    wordings = yaml.safe_load(script.WORDINGS.read_text(encoding="utf-8"))
    rng = random.Random(0)
    for kind in ("arithmetic", "facts", "how-to"):
        for template in wordings[kind]:
            for ask in range(len(template.get("asks", [0]))):
                task = script.make_task(kind, wordings, template, ask, rng)
                assert task.places
                for number in range(len(task.places)):
                    text, (start, end) = script.answer_of(task, number)
                    assert text[start:end] == task.places[number]["wrong"]


def test_the_files_are_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.glob("*.jsonl")) < 300_000
