"""scripts/pit_synthetic.py: its quality, its data, and that PIT raises answers which imitation leaves wrong."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.reproduce.opposites import Stages, Training, answer_with, examples, measured, quality
from tests.launching import ROOT


def load() -> Any:
    spec = importlib.util.spec_from_file_location("pit_synthetic", ROOT / "scripts" / "pit_synthetic.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load()
PROMPT = [{"role": "user", "content": "Name the opposites of hot, up, new."}]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("hot cold, up down, new old", 1.0),
        ("new old, Hot  cold, up down.", 1.0),  # in any order
        ("hot cold, up down, new big", 2 / 3),
        ("hot cold, up down", 2 / 3),
        ("hot cold, up down, new old, big small", 3 / 4),  # what was not asked counts against it
        ("hot cold, hot cold, hot cold", 1 / 3),
        ("cold, down, old", 0.0),
        ("", 0.0),
    ],
)
def test_quality_by_hand(answer: str, expected: float) -> None:
    assert quality(PROMPT, answer) == pytest.approx(expected)


def test_the_pairs_are_what_they_say() -> None:
    held_out = examples(60, 1)
    found = examples(200, 2, held_out)
    prompts = [example.prompt[0]["content"] for example in [*held_out, *found]]
    assert len(set(prompts)) == len(prompts)
    sides = [[quality(e.prompt, response.text) for response in e.responses] for e in found]
    assert all(chosen > rejected for chosen, rejected in sides) and all(rejected < 0.5 for _, rejected in sides)
    perfect = sum(chosen == 1 for chosen, _ in sides) / len(sides)
    assert 0.15 < perfect < 0.35
    assert [e.responses[0].text for e in examples(5, 2)] == [e.responses[0].text for e in examples(5, 2)]
    draw = random.Random(0)
    found = [quality(PROMPT, answer_with(["hot", "up", "new"], errors, draw)) for errors in range(4)]
    assert found == pytest.approx([1, 2 / 3, 1 / 3, 0])


def test_the_table_has_a_row_for_each_kind_and_variant() -> None:
    def row(variant: str, seed: int, raised: float) -> dict[str, Any]:
        numbers = {"before": 0.5, "after": 0.75, "improvable": 10, "raised": raised, "lowered": 0.1}
        side = {**numbers, "perfect": 4, "perfect_change": -0.25}
        return {"variant": variant, "seed": seed, "data": side, "policy": side}

    lines = script.table([row("PIT", 0, 0.8), row("PIT", 1, 0.9), row("imitation alone", 0, 0.6)]).splitlines()
    assert len(lines) == 6 and "| 85 % | 80, 90 % | 10 % | -0.250 |" in lines[3]


@pytest.mark.slow
def test_pit_raises_what_imitation_leaves_wrong(tmp_path: Path) -> None:
    stages = Stages(tmp_path, 0, Training(held_out=60))
    from alignment.feedback.gap import GapReward

    start = stages.imitated("pit_sft")
    gap = GapReward(str(stages.scorer("pit_gap", start)))
    improver = stages.online("pit", "pit", start, gap, "pit.references=data")
    prompts = [example.prompt for example in stages.held_out for _ in range(2)]
    given = [response.text for example in stages.held_out for response in example.responses]
    before, after = (measured(model, prompts, given, 1.0) for model in (start, improver))
    assert after["raised"] >= 0.9 > before["raised"] and after["lowered"] <= 0.02
    assert after["perfect_change"] >= -0.1 > before["perfect_change"]
