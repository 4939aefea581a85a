"""TR-DPO: the reference follows the policy exactly, with LoRA too, and a resumed run finds it where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alignment.batching.microbatch import groups_of
from alignment.batching.packing import pack
from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, ReferenceConfig, RunConfig, TrainingConfig
from alignment.errors import UserError
from alignment.models.logps import causal_lm, token_logps
from alignment.models.reference import AdapterOff, MovingCopy, merged_weight, reference_sums
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.pairs import some_pairs


def trainer_in(folder: Path, peft: str, rate: float, steps: int = 3, max_steps: int = 7) -> DPOTrainer:
    config = RunConfig(
        model=ModelConfig(path="tiny", dtype="float32"),
        peft=PeftConfig(method=peft, r=4),
        reference=ReferenceConfig(update_steps=steps, update_rate=rate),
        training=TrainingConfig(
            learning_rate=2e-3, batch_size=3, max_steps=max_steps, bf16=False, warmup_ratio=0.0, save_steps=4
        ),
        evaluation=EvaluationConfig(prompts=0),
    )
    return DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=folder)


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_with_rate_one_it_is_the_policy(peft: str, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, peft, rate=1.0, steps=1, max_steps=3)
    trainer.train()
    batch = pack(groups_of(trainer.train_units))
    with torch.no_grad():
        policy = token_logps(trainer.model.eval(), batch)
        with trainer.reference.active(trainer.model) as model:
            reference = token_logps(model, batch)
    torch.testing.assert_close(policy, reference, atol=1e-5, rtol=1e-5)
    assert trainer.evaluate()["eval_margin"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_every_weight_goes_that_share_of_the_way(peft: str, tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, peft, rate=0.25)
    assert isinstance(trainer.reference, MovingCopy)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    before = {name: weight.clone() for name, weight in trainer.reference.model.named_parameters()}
    trainer.reference.follow(trainer.model)
    core = causal_lm(trainer.model)
    known, moved = dict(core.named_parameters()), 0
    for name, weight in trainer.reference.model.named_parameters():
        target = known[name] if name in known else merged_weight(core, name)
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * target, atol=1e-6, rtol=1e-5)
        moved += not torch.equal(weight, before[name])
    assert moved >= 7  # the adapted layers at least
    if peft == "lora":
        name = "model.layers.0.self_attn.q_proj"
        layer = core.get_submodule(name)
        added = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        now = dict(trainer.reference.model.named_parameters())[f"{name}.weight"]
        torch.testing.assert_close(now - before[f"{name}.weight"], 0.25 * added, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("peft", ["none", "lora"])
def test_a_resumed_run_finds_it_where_it_was(peft: str, tmp_path: Path) -> None:
    def rows() -> list[tuple]:
        lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        return [(row["step"], row["loss"], row["margin"]) for row in lines if "loss" in row]

    trainer_in(tmp_path, peft, rate=0.5).train()
    kept = rows()
    trainer_in(tmp_path, peft, rate=0.5).resume(tmp_path / "checkpoints" / "checkpoint-4")
    assert rows() == kept and len(kept) == 7


def test_kl_is_measured_against_the_start(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path / "lora", "lora", rate=1.0)
    assert isinstance(trainer.start, AdapterOff)
    batch = pack(groups_of(trainer.train_units))
    before = reference_sums(trainer.start, trainer.model, batch)
    trainer.train()
    torch.testing.assert_close(reference_sums(trainer.start, trainer.model, batch), before)
    assert trainer_in(tmp_path / "full", "none", rate=1.0).start is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"when": "precompute"}, "reference.when=precompute cannot go with reference.update_steps"),
        ({"path": "tiny"}, "leave out reference.path"),
        ({"kind": "adapter_off"}, "leave out reference.kind=adapter_off"),
        ({"update_rate": 0.0}, r"reference.update_rate=0.0: must be in \(0, 1\]"),
        ({"update_steps": 0}, "reference.update_steps=0: must be at least 1"),
    ],
)
def test_settings_that_contradict(changes: dict, message: str, tmp_path: Path) -> None:
    config = RunConfig(model=ModelConfig(path="tiny"), reference=ReferenceConfig(**{"update_steps": 2, **changes}))
    with pytest.raises(UserError, match=message):
        DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=tmp_path)
