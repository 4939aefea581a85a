"""An adapter that is gone on with, or sampled from: beside its base, and what the reference is then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, ReferenceConfig, RunConfig, TrainingConfig
from alignment.errors import UserError
from alignment.models.adapters import add_adapter, is_adapted, load_beside
from alignment.models.loading import load_model, load_tokenizer
from alignment.models.reference import AdapterOff
from alignment.trainers.cut import CUTTrainer
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.judgments import some_judgments
from tests.trainers.pairs import some_pairs

IDS = torch.arange(5, 45)[None]


def changed(dtype: str, size: float = 1e-3) -> Any:
    """`tiny` with an adapter that changes it by a little."""
    torch.manual_seed(0)
    model = add_adapter(load_model(ModelConfig(path="tiny", dtype=dtype)), PeftConfig())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, size)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a run whose model is an adapter."""
    changed("bfloat16").save_pretrained(tmp_path / "model")
    load_tokenizer(ModelConfig(path="tiny")).save_pretrained(tmp_path / "model")
    return tmp_path


def test_beside_half_precision_weights_it_is_the_one_that_was_trained(saved: Path) -> None:
    policy = changed("bfloat16")
    trained = logits(policy)
    with policy.disable_adapter():
        moved = (trained - logits(policy)).norm()
    beside, merged = (
        logits(load(ModelConfig(path=str(saved), dtype="bfloat16"))) for load in (load_beside, load_model)
    )
    assert torch.equal(beside, trained)
    assert (merged - trained).norm() > 0.2 * moved  # a good part of so small an update is rounded away
    assert not is_adapted(load_beside(ModelConfig(path="tiny")))


def test_it_is_gone_on_with(saved: Path) -> None:
    model = add_adapter(load_model(ModelConfig(path="tiny", dtype="bfloat16")), PeftConfig(path=str(saved), r=3))
    assert torch.equal(logits(model.eval()), logits(changed("bfloat16")))
    grown = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert grown and all("lora" in name for name in grown) and model.peft_config["default"].r == 16


@pytest.mark.parametrize(
    ("peft", "task", "says"),
    [
        ({"path": "tiny"}, "CAUSAL_LM", "peft.path=tiny: there is no LoRA adapter in"),
        ({"path": "RUN", "method": "none"}, "CAUSAL_LM", "not with peft=none: give model.path="),
        ({"path": "RUN"}, "SEQ_CLS", "not with a model that scores answers: give model.path="),
    ],
)
def test_refusals(peft: dict[str, Any], task: str, says: str, saved: Path) -> None:
    given = {**peft, "path": str(saved) if peft["path"] == "RUN" else peft["path"]}
    with pytest.raises(UserError, match=says):
        add_adapter(load_model(ModelConfig(path="tiny")), PeftConfig(**given), task)


def test_an_adapter_on_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    other = load_model(ModelConfig(path="tiny"))
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="its adapter was trained on .*tiny, and the model is .*other"):
        add_adapter(load_model(ModelConfig(path=str(tmp_path / "other"))), PeftConfig(path=str(saved)))


def config(method: str, saved: Path, **reference: Any) -> RunConfig:
    return RunConfig(
        method=method,
        model=ModelConfig(path="tiny", dtype="bfloat16"),
        peft=PeftConfig(path=str(saved)),
        reference=ReferenceConfig(**reference),
        training=TrainingConfig(batch_size=2, max_steps=1, bf16=False),
        evaluation=EvaluationConfig(prompts=0),
        loss={"name": {"dpo": "sigmoid", "cut": "cut"}[method]},
    )


def test_the_reference_is_the_policy_with_the_adapter_that_it_begins_with(saved: Path, tmp_path: Path) -> None:
    trainer = DPOTrainer(config=config("dpo", saved), train=some_pairs(4), eval=[], folder=tmp_path / "dpo")
    assert trainer.reference is trainer.start and not isinstance(trainer.start, AdapterOff)
    assert torch.equal(logits(trainer.start.model), logits(changed("bfloat16")))  # type: ignore[union-attr]
    # A loss that reads no reference gets none; asked for, it is the base.
    records = some_judgments()
    trainer = CUTTrainer(config=config("cut", saved), train=records, eval=records, folder=tmp_path / "cut")
    assert trainer.start is None
    asked = config("cut", saved, kind="adapter_off")
    trainer = CUTTrainer(config=asked, train=records, eval=records, folder=tmp_path / "cut")
    assert isinstance(trainer.start, AdapterOff)
