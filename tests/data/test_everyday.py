"""The built-in data set `everyday`: its files are what docs/everyday.md says, and the score in them is today's."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import alignment
from alignment.feedback.rules import PlainWords

FOLDER = Path(alignment.__file__).parent / "data" / "builtin_sets" / "everyday"
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WORDS = "what is a an the how do i my to for of in and does mean it me can should suggest explain why"
LITTLE = frozenset(WORDS.split())


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def prompt_of(row: dict[str, Any]) -> str:
    return row["prompt"][0]["content"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/make_everyday.py as a module."""
    path = SCRIPTS / "make_everyday.py"
    if not path.exists():
        pytest.skip("the scripts are not part of an installed wheel")
    spec = importlib.util.spec_from_file_location("make_everyday", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_enough_prompts_and_the_splits_share_none() -> None:
    train, test = [prompt_of(row) for row in rows("train")], [prompt_of(row) for row in rows("test")]
    assert len(train) >= 240 and len(test) >= 100
    assert len(set(train + test)) == len(train) + len(test)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_row_is_whole(split: str) -> None:
    for row in rows(split):
        assert [message["role"] for message in row["prompt"]] == ["user"]
        texts = [response["messages"][0]["content"] for response in row["responses"]]
        assert 2 <= len(texts) <= 4 and len(set(texts)) == len(texts)
        assert all(text == text.strip() and text for text in texts)
        assert all(response["source"] == "SmolLM2-135M-Instruct" for response in row["responses"])
        assert re.fullmatch(r"everyday-[0-9a-f]{8}", row["meta"]["id"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_scores_are_plain_words_and_the_best_is_preferred_to_the_worst(split: str) -> None:
    for row in rows(split):
        texts = [response["messages"][0]["content"] for response in row["responses"]]
        scores = [response["score"] for response in row["responses"]]
        assert PlainWords().score([row["prompt"]] * len(texts), texts) == pytest.approx(scores, abs=6e-4)
        (preference,) = row["preferences"]
        assert scores[preference["first"]] == max(scores) and scores[preference["second"]] == min(scores)
        assert preference["p_first"] == 1.0
        assert preference["margin"] == pytest.approx(max(scores) - min(scores), abs=1e-9)
        assert preference["margin"] >= 0.5


def test_ids_differ() -> None:
    ids = [row["meta"]["id"] for row in rows("train") + rows("test")]
    assert len(set(ids)) == len(ids)


def test_the_prompts_are_the_scripts_and_split_by_its_hash(script: ModuleType) -> None:
    listed = set(script.read_prompts(script.PROMPTS))
    for split in ("train", "test"):
        for row in rows(split):
            assert prompt_of(row) in listed
            assert script.split_of(prompt_of(row)) == split
            assert row["meta"]["id"] == f"everyday-{script.digest(prompt_of(row)) % 16**8:08x}"


def test_no_two_prompts_are_nearly_the_same(script: ModuleType) -> None:
    # By their words without the little ones: "What is a vowel?" and "What is a glacier?" are different prompts.
    words = [frozenset(script.words_of(prompt)) - LITTLE for prompt in script.read_prompts(script.PROMPTS)]
    near = [(a, b) for a, b in itertools.combinations(words, 2) if len(a & b) > 0.7 * len(a | b)]
    assert near == []


def test_whole_sentences_cuts_back_an_unfinished_answer(script: ModuleType) -> None:
    cut = script.whole_sentences
    assert cut("Wash it. Then dry it and") == "Wash it."
    assert cut('He said "stop!" Then he') == 'He said "stop!"'
    assert cut("Do this:\n\n1. Stir it well.\n\n2. Add") == "Do this:\n\n1. Stir it well."
    assert cut("Do this:\n\n1. Stir it well.\n\n2.") == "Do this:\n\n1. Stir it well."
    assert cut("It costs 3.5 dollars and") == ""
    assert cut("All of it.") == "All of it."


def test_answers_that_may_not_enter_are_left_out(script: ModuleType) -> None:
    def answer(text: str, finished: bool = True, logp: float = -1.0) -> dict[str, Any]:
        return {"text": text, "finished": finished, "logp": logp}

    good, copy = answer("Use oil on the pan."), answer("Use a little oil or butter on the pan.")
    cut, open_end, odd = (
        answer("Cut it. Then", False),
        answer("First you take the", False),
        answer("Oil it, jam.", True, -2.1),
    )
    kept = script.usable([copy, good, good, answer("Cut it up. Then", False), cut, open_end, odd, answer("")])
    assert kept == ["Use oil on the pan.", "Cut it up."]


def test_a_prompt_without_a_preference_gives_no_record(script: ModuleType) -> None:
    assert script.record("Why?", []) is None
    assert script.record("Why?", ["The cat sat on the mat in the sun and it was warm."]) is None
