"""A base in 4 or 8 bits: what it computes, what its adapter is merged into, and what is refused."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignment.config import ModelConfig, PeftConfig, ReferenceConfig, RolloutConfig, RunConfig
from alignment.config_check import check_values
from alignment.errors import UserError
from alignment.evaluation.export import export
from alignment.launch.compose import Composer
from alignment.models import quantised
from alignment.models.adapters import add_adapter, load_beside
from alignment.models.layout_check import choose_layout, layout_deviation
from alignment.models.loading import load_model
from alignment.models.logps import attach
from alignment.trainers.checkpoints import checkpoint_folder
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.pairs import some_pairs

IDS = torch.arange(40, 64)[None]


def logps(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits.float().log_softmax(-1)


@pytest.fixture
def bitsandbytes() -> None:
    pytest.importorskip("bitsandbytes", reason="the extra `quantised` is not installed")


@pytest.fixture
def no_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(quantised.importlib.metadata, "version", version)


def settings(folder: Path, kind: str | None = "4bit", **training: Any) -> RunConfig:
    config = RunConfig(method="dpo", loss={"name": "sigmoid", "beta": 0.1}, output_dir=str(folder))
    config.model = ModelConfig(path="tiny", quantization=kind)
    made = {"batch_size": 3, "max_steps": 3, "learning_rate": 1e-3, "bf16": False, **training}
    config.training = replace(config.training, **made)
    config.evaluation.prompts = 0
    return config


def trained(folder: Path, **training: Any) -> DPOTrainer:
    trainer = DPOTrainer(config=settings(folder, **training), train=some_pairs(6), folder=folder)
    trainer.train()
    trainer.save_policy(folder / "model")
    return trainer


# -- what is refused, with or without bitsandbytes --------------------------------------------------------------------


@pytest.mark.usefixtures("no_bitsandbytes")
@pytest.mark.parametrize(
    "words", [["peft=qlora"], ["training.optimizer=adamw_8bit"], ["training.optimizer=paged_adamw_8bit"]]
)
def test_without_bitsandbytes_one_line_says_what_to_install(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"needs bitsandbytes.*pip install 'alignment-toolkit\[quantised\]'"):
        Composer.create().config(["recipe=dpo", "model=tiny", *words])


def test_an_old_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised.importlib.metadata, "version", lambda name: "0.45.5")
    with pytest.raises(UserError, match=r"bitsandbytes 0\.50 or newer, not 0\.45\.5"):
        quantised.require("model.quantization=4bit")


def test_settings_that_would_change_the_base_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quantised.importlib.metadata, "version", lambda name: "0.50.2")
    for changed, words in (
        ({"peft": PeftConfig(method="none")}, "peft=none trains all of it: give peft=qlora"),
        ({"reference": ReferenceConfig(update_steps=2)}, "reference.update_steps moves a copy of all weights"),
        ({"rollout": RolloutConfig(opponent_decay=0.99)}, "rollout.opponent_decay moves a copy"),
    ):
        with pytest.raises(UserError, match=words):
            check_values(replace(settings(tmp_path), **changed))
    with pytest.raises(UserError, match="model.quantization=4bits: did you mean 4bit"):
        check_values(settings(tmp_path, kind="4bits"))


def test_the_recipe_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised.importlib.metadata, "version", lambda name: "0.50.2")
    config = Composer.create().config(["recipe=dpo", "model=tiny", "peft=qlora"])
    assert (config.model.quantization, config.model.dtype, config.peft.method) == ("4bit", "auto", "lora")
    config = Composer.create().config(["recipe=dpo", "model=tiny", "peft=qlora", "model.quantization=8bit"])
    assert config.model.quantization == "8bit"


# -- what a quantised base computes ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("bitsandbytes")
@pytest.mark.parametrize("kind", quantised.KINDS)
def test_both_layouts_and_both_modes_give_the_same_numbers(kind: str) -> None:
    model: Any = attach(add_adapter(load_model(ModelConfig(path="tiny", quantization=kind)), PeftConfig()))
    assert quantised.is_quantised(model)
    assert choose_layout(model, "shared") == ("shared", None)
    with torch.no_grad():
        deviation, unheeded = layout_deviation(model.eval())
        assert deviation < 1e-5 < 0.1 < unheeded
        evaluated = model(IDS).logits
        assert torch.equal(model.train()(IDS).logits, evaluated)  # bitsandbytes alone is off by 0.1 nats on a CPU
    plain = load_model(ModelConfig(path="tiny"))
    stands_for = {"4bit": 0.05, "8bit": 0.005}[kind]
    assert 1e-4 < (logps(plain) - logps(model)).abs().mean() < 20 * stands_for
    everything = sum(p.numel() for p in plain.parameters())
    assert sum(quantised.weights_in(p) for p in model.get_base_model().parameters()) - everything == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model(IDS).logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.usefixtures("bitsandbytes")
def test_a_run_starts_at_its_reference_and_its_adapter_stays_on_the_weights_it_was_trained_on(tmp_path: Path) -> None:
    trainer = trained(tmp_path, save_steps=2, optimizer="adamw_8bit")
    first = trainer.state.log_history[0]
    assert first["margin"] == 0.0  # the reference is the base with the adapter off, to the last bit
    expected, folder = logps(trainer.model), str(tmp_path / "model")
    beside = load_beside(ModelConfig(path=folder, dtype="bfloat16"))  # held as it was trained
    assert torch.equal(logps(beside), expected)
    assert (logps(load_model(ModelConfig(path=folder))) - expected).abs().max() < 1e-4  # 1.2e-5 was seen
    lines: list[str] = []
    plain = AutoModelForCausalLM.from_pretrained(export(tmp_path, tmp_path / "plain", say=lines.append))
    assert plain.dtype == torch.float32 and not quantised.is_quantised(plain)
    assert (logps(plain) - expected).abs().max() < 1e-4
    assert len(lines) == 1 and lines[0].endswith("(allowed: 0.0001)")
    # Merged into the weights before they were rounded it is another model.
    (tmp_path / "model" / quantised.NOTE).unlink()
    assert (logps(load_model(ModelConfig(path=folder))) - expected).abs().mean() > 0.1  # 0.33 was seen

    again = DPOTrainer(config=settings(tmp_path, save_steps=2, optimizer="adamw_8bit"), train=some_pairs(6))
    again.resume(checkpoint_folder(tmp_path, 2))
    assert torch.equal(logps(again.model), expected)
    other = DPOTrainer(config=settings(tmp_path, kind="8bit", save_steps=2), train=some_pairs(6), folder=tmp_path)
    with pytest.raises(UserError, match="model.quantization: 4bit -> 8bit"):
        other.resume(checkpoint_folder(tmp_path, 2))


@pytest.mark.usefixtures("bitsandbytes")
def test_an_adapter_goes_on_where_it_was_trained(tmp_path: Path) -> None:
    model = add_adapter(load_model(ModelConfig(path="tiny", quantization="4bit")), PeftConfig())
    model.save_pretrained(str(tmp_path))
    quantised.note(tmp_path, "4bit", "float32")
    going_on = PeftConfig(path=str(tmp_path))
    assert add_adapter(load_model(ModelConfig(path="tiny", quantization="4bit")), going_on).peft_config
    with pytest.raises(UserError, match="trained with model.quantization=4bit: give that"):
        add_adapter(load_model(ModelConfig(path="tiny")), going_on)
    with pytest.raises(UserError, match=r"cannot be merged into a quantised base.*\nMend: go on with it \(peft.path="):
        load_model(ModelConfig(path=str(tmp_path), quantization="4bit"))
    (tmp_path / quantised.NOTE).write_text('{"quantization": "2bit"}')
    with pytest.raises(UserError, match="quantization is '2bit', not 8bit or 4bit"):
        load_model(ModelConfig(path=str(tmp_path)))
