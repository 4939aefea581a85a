"""data.part: a third of the prompts for each stage, and none in two of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.config import PARTS, DataConfig, ModelConfig, RunConfig
from alignment.config_check import check_values
from alignment.data.views import Pair, Prompt
from alignment.errors import UserError
from alignment.models.loading import load_tokenizer
from alignment.trainers.inputs import load_demonstrations, load_improvements, load_pairs, load_prompts, part_of
from alignment.trainers.pit_sft import showing_of
from tests.end_to_end.data import write_pairs
from tests.trainers.pairs import some_pairs


def ids(found: Any) -> set[str]:
    return {item.id for item in found}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=12, max_size=60), st.data())
def test_each_prompt_is_in_one_part_whatever_stands_beside_it(numbers: list[int], data: st.DataObject) -> None:
    """Several pairs of a prompt go together; leaving rows out or asking with another view moves none."""
    pairs = [Pair(f"{at}", [{"role": "user", "content": f"Prompt {n}"}], [], []) for at, n in enumerate(numbers)]
    parts = {}
    for part in PARTS:
        try:
            parts[part], others = part_of(pairs, part)
            assert others == len(pairs) - len(parts[part])
        except UserError:
            parts[part] = []
    assert sorted(pair.id for part in parts.values() for pair in part) == sorted(pair.id for pair in pairs)
    prompts = {part: {pair.prompt[0]["content"] for pair in found} for part, found in parts.items()}
    assert sum(map(len, prompts.values())) == len(set(numbers))
    fewer = data.draw(st.lists(st.sampled_from(pairs), min_size=1, unique_by=lambda pair: pair.id))
    for part in PARTS:
        wanted = [Prompt(pair.id, pair.prompt) for pair in fewer if pair in parts[part]]
        if wanted:
            assert ids(part_of([Prompt(pair.id, pair.prompt) for pair in fewer], part)[0]) == ids(wanted)


def test_the_parts_are_about_equal() -> None:
    pairs = some_pairs(3000)
    sizes = [len(part_of(pairs, part)[0]) for part in PARTS]
    assert sum(sizes) == 3000 and all(abs(size - 1000) < 100 for size in sizes)


def test_the_views_of_one_file_agree_and_hold_out_the_same_prompts(tmp_path: Any) -> None:
    file, tokenizer = str(write_pairs(tmp_path / "pairs.jsonl", count=60)), load_tokenizer(ModelConfig(path="tiny"))
    trained, held_out = [], []
    for part in PARTS:
        config = RunConfig(model=ModelConfig(path="tiny"), data=DataConfig(path=file, eval_fraction=0.2, part=part))
        showing = showing_of(config.pit)
        found = [load(None, None, tokenizer, config) for load in (load_pairs, load_demonstrations, load_prompts)]
        found.append(load_improvements(None, None, tokenizer, config, showing))
        prompts = [{repr(record.prompt) for record in each.records.values()} for each in found]
        assert prompts[0] == prompts[1] == prompts[2] == prompts[3]
        assert found[0].counts["train"]["other_parts"] == 48 - len(prompts[0])
        trained.append(prompts[0])
        held_out.append({repr(prompt) for prompt in found[0].prompts})
    assert held_out[0] == held_out[1] == held_out[2] and len(held_out[0]) == 12
    assert sum(map(len, trained)) == len(set.union(*trained)) == 48 and not set.union(*trained) & held_out[0]


def test_wrong_parts_are_refused_in_one_line() -> None:
    config = RunConfig(data=DataConfig(part="rewards"))
    with pytest.raises(UserError, match=r"data.part=rewards: did you mean reward\? \(known: sft, reward, rl\)"):
        check_values(config)
    config.data.part = None
    check_values(config)
    empty = next(part for part in PARTS if not [p for p in some_pairs(1) if p in _part(part)])
    with pytest.raises(UserError, match=f"data.part={empty}: none of 1 training examples is in this third"):
        part_of(some_pairs(1), empty)


def _part(part: str) -> list[Pair]:
    try:
        return part_of(some_pairs(1), part)[0]
    except UserError:
        return []
