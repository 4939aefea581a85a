"""A DPO run of a few steps on `tiny`, in this process, whose loss can be told to err."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alignment.config import EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from alignment.losses.pairwise import sigmoid
from alignment.losses.record import LossOutput, PairLogps
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.pairs import some_pairs

Change = Callable[[int, LossOutput], LossOutput]  # of the n-th call's loss, counted from 1


def dpo(folder: Path, change: Change | None = None, guard: dict[str, Any] | None = None, **training: Any) -> DPOTrainer:
    """Steps of 2 pairs, in one micro-batch each: the n-th call of the loss is that of step n."""
    fields = dict(learning_rate=1e-3, batch_size=2, max_steps=6, bf16=False, warmup_ratio=0.0, save_steps=2) | training
    config = RunConfig(
        model=ModelConfig(path="tiny", dtype="float32"),
        loss={"name": "sigmoid", "beta": 0.1},
        training=TrainingConfig(**fields),
        evaluation=EvaluationConfig(prompts=0),
    )
    for name, value in (guard or {}).items():
        setattr(config.guard, name, value)
    calls = iter(range(1, 1000))

    def loss(pairs: PairLogps) -> LossOutput:
        found = sigmoid(pairs, beta=0.1)
        return change(next(calls), found) if change else found

    return DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(2), loss=loss, folder=folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(trainer: Any) -> list[torch.Tensor]:
    """Copies of what is trained."""
    return [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
