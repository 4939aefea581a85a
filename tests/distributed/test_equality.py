"""One process, two under DDP and two with sharded models make one run of every trainer; so do other ones later.

What is sharded here is sharded by accelerate's own FSDP2 code, which is made to do it on a CPU (sharding.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.batching.units import pair_units
from alignment.config import DataConfig, ModelConfig
from alignment.models.loading import load_model, load_tokenizer
from alignment.trainers.checkpoints import is_whole
from tests.distributed import runs
from tests.distributed.equality import difference, run_all, weights
from tests.trainers.pairs import some_pairs

pytestmark = pytest.mark.slow
# Each once with each layout and each kind of weights; TR-DPO and PPO once.
LEFT_OUT = {*runs.DPO_MORE, "tr_dpo.padded.none", "ppo.shared.lora"}
CASES = [case for case in runs.all_cases() if case not in LEFT_OUT]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    run_all(out, CASES)
    return out


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
@pytest.mark.parametrize("case", CASES)
def test_same_losses_and_weights(case: str, mode: str, found: Path) -> None:
    far = difference(found / "whole" / case, found / mode / case)
    assert far.loss < 1e-5 and far.weights < 1e-3 and far.logps < 1e-4, far


@pytest.mark.parametrize("mode", ["whole", "ddp", "fsdp2-one", "fsdp2"])
@pytest.mark.parametrize("case", runs.KEPT)
def test_resumed_on_another_number_of_processes_it_is_the_uninterrupted_run(case: str, mode: str, found: Path) -> None:
    far = difference(found / "whole" / case, found / mode / f"{case}.resumed")
    assert far.loss < 1e-5 and far.weights < 1e-3 and far.logps < 1e-4, far


def test_sharded_checkpoints_are_whole_and_sharded(found: Path) -> None:
    folder = found / "fsdp2" / "dpo.padded.none" / "checkpoints" / "checkpoint-1"
    assert is_whole(folder) and len(list(folder.glob("pytorch_model_fsdp_0/*.distcp"))) == 2


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("dpo.")])
def test_a_saved_policy_loads_with_plain_transformers(case: str, mode: str, found: Path) -> None:
    """The log-probs of the model as transformers and peft load it, each answer alone, are those of the trained one."""
    folder = found / mode / case / "model"
    if case.endswith("lora"):
        model = PeftModel.from_pretrained(load_model(ModelConfig(path="tiny")), folder)
    else:
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert weights(folder).keys() == weights(found / "whole" / case / "model").keys()
    units, _ = pair_units(some_pairs(3), load_tokenizer(ModelConfig(path="tiny")), DataConfig())
    answers = [(unit.groups[0].prompt, answer) for unit in units for answer in unit.groups[0].completions]
    expected = json.loads((found / mode / case / "found.json").read_text())["logps"]
    for (prompt, answer), row in zip(answers, expected, strict=True):
        with torch.no_grad():
            logits = model.eval()(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        alone = logits.log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(alone, torch.tensor(row), atol=1e-4, rtol=0)


def test_a_saved_reward_model_and_a_policy_with_a_value_head_load_whole(found: Path) -> None:
    for case, kind in (
        ("reward.padded.none", AutoModelForSequenceClassification),
        ("ppo.padded.none", AutoModelForCausalLM),
    ):
        _, info = kind.from_pretrained(found / "fsdp2" / case / "model", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
