"""One tiny model off its reference and one batch of pairs, in our trainer and in TRL's: loss and gradient of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data.templates import encode_pair
from alignment.losses.combine import PairLoss
from alignment.models.loading import load_model, load_tokenizer
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.loss_settings import build_loss
from tests.trainers.pairs import some_pairs

TINY = ModelConfig(path="tiny", dtype="float32")

Measured = tuple[float, dict[str, Tensor]]  # mean loss over the batch, gradient by parameter


def our_trainer(folder: Path) -> DPOTrainer:
    """All weights trained, a frozen copy as reference, and the policy then moved off it."""
    config = RunConfig(
        model=TINY,
        peft=PeftConfig(method="none"),
        training=TrainingConfig(batch_size=6, max_steps=1, bf16=False),
        evaluation=EvaluationConfig(prompts=0),
    )
    trainer = DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(trainer.model.named_parameters()):
            if "mlp" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return trainer


def ours(trainer: DPOTrainer, loss: PairLoss | dict[str, Any]) -> Measured:
    """Mean loss of the batch and its gradient, with `loss` in place of the trainer's."""
    trainer.loss = build_loss(loss) if isinstance(loss, dict) else loss
    trainer.model.zero_grad()
    mean = trainer.run(trainer.model, trainer.train_units).values.mean()
    mean.backward()
    return float(mean.detach()), gradient(trainer.model)


def gradient(model: Any) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def text_rows() -> list[dict[str, str]]:
    """The pairs as plain text: with messages TRL also trains what the template writes behind the end of the turn."""
    tokenizer, rows = load_tokenizer(TINY), []
    for pair in some_pairs():
        prompt, chosen = encode_pair(tokenizer, pair.prompt, pair.chosen)
        _, rejected = encode_pair(tokenizer, pair.prompt, pair.rejected)
        texts = [tokenizer.decode(ids) for ids in (prompt, chosen[:-1], rejected[:-1])]  # TRL adds the end token
        rows.append(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True)))
    return rows


def peer_model(trainer: Any) -> Any:
    """A plain model with the weights of a trainer's policy or of a frozen copy, which TRL may patch as it likes."""
    model = load_model(TINY)
    model.load_state_dict(trainer.model.state_dict())
    return model


PEER_ARGUMENTS = dict(
    per_device_train_batch_size=6,
    max_steps=1,
    bf16=False,
    gradient_checkpointing=False,
    use_cpu=True,
    report_to="none",
    disable_tqdm=True,
    save_strategy="no",
)


def distance(found: Measured, expected: Measured) -> tuple[float, float]:
    """(absolute difference of the losses, relative distance of the gradients as one long vector)."""
    (loss, grads), (other, others) = found, expected
    assert grads.keys() == others.keys()
    difference = sum(float((grads[name] - others[name]).square().sum()) for name in grads)
    norm = sum(float(value.square().sum()) for value in others.values())
    return abs(loss - other), (difference / norm) ** 0.5


def agree(found: Measured, expected: Measured) -> None:
    """The losses within 1e-5 (relative where above 1, as float32 is), the gradients within 1e-4."""
    loss, grads = distance(found, expected)
    assert loss < 1e-5 * max(1.0, abs(expected[0])), (found[0], expected[0])
    assert grads < 1e-4, grads
