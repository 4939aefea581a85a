"""The gradient of one optimizer step for every loss, however the step is cut.

Run by tests, on one process or under `accelerate launch` on two: `invariance.py OUT token_budget`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedDataParallelKwargs

from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data.views import Demonstration, Improvement, Unpaired
from alignment.trainers.cut import CUTTrainer
from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.gap_model import GapTrainer
from alignment.trainers.kto import KTOTrainer, RewardShift
from alignment.trainers.loss_settings import PAIRWISE, UNPAIRED, build_loss, build_unpaired_loss
from alignment.trainers.pit_sft import ImproverTrainer
from alignment.trainers.preference_model import PreferenceModelTrainer
from alignment.trainers.reward import RewardTrainer
from alignment.trainers.sft import SFTTrainer
from tests.trainers.judgments import some_judgments
from tests.trainers.pairs import some_pairs

NEEDED: dict[str, dict[str, Any]] = {"ipo": {"length": "mean"}, "exo": {"label_smoothing": 0.1}}
SETTINGS: dict[str, dict[str, Any]] = {name: {"name": name, **NEEDED.get(name, {})} for name in PAIRWISE} | {
    "label smoothing": {"name": "sigmoid", "label_smoothing": 0.2},
    "ipo, sum": {"name": "ipo", "length": "sum"},
    "js": {"name": "sigmoid", "divergence": "js"},
    "wpo": {"name": "sigmoid", "weighting": "wpo"},
    "ld": {"name": "sigmoid", "ld_alpha": 0.4},
    "sum": {"terms": [{"name": "sigmoid"}, {"name": "sft", "weight": 0.3}, {"name": "hinge", "weight": 0.5}]},
}
ANSWER_SETTINGS = {name: {"name": name, "beta": 0.3} for name in UNPAIRED}
OTHER_TRAINERS: dict[str, tuple[type, dict[str, Any]]] = {
    "reward": (RewardTrainer, {"name": "bradley_terry", "centring": 0.1, "label_smoothing": 0.2}),
    "preference": (PreferenceModelTrainer, {"name": "bradley_terry"}),
    "gap": (GapTrainer, {"name": "gap"}),
    "sft, mean over tokens": (SFTTrainer, {"name": "nll", "mean": "token"}),
    "sft, mean over sequences": (SFTTrainer, {"name": "nll", "mean": "sequence"}),
    "pit_sft": (ImproverTrainer, {"name": "nll"}),
    "cut": (CUTTrainer, {"name": "cut", "margin": 1.1}),
    "cut, the authors' code": (CUTTrainer, {"name": "cut", "variant": "authors_code", "margin": 1.1}),
}


def trainer_of(kind: type, folder: Path, budget: int, loss: dict[str, Any]) -> Any:
    config = RunConfig(
        model=ModelConfig(path="tiny", dtype="float32"),
        peft=PeftConfig(method="lora", r=4),
        training=TrainingConfig(
            batch_size=12 if kind is KTOTrainer else 6, max_steps=1, token_budget=budget, bf16=False
        ),
        evaluation=EvaluationConfig(prompts=0),
        loss=loss,
    )
    makers = {KTOTrainer: _answers, SFTTrainer: _demonstrations, CUTTrainer: some_judgments}
    data: Any = {**makers, ImproverTrainer: _improvements}.get(kind, some_pairs)()
    trainer = kind(config=config, train=data, eval=data, folder=folder)
    torch.manual_seed(0)
    with torch.no_grad():  # off the reference, so that no loss is at its symmetric start
        for name, parameter in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    trainer.accelerator.ddp_handler = DistributedDataParallelKwargs(broadcast_buffers=False)
    trainer.model_wrapped = trainer.accelerator.prepare_model(trainer.model)
    return trainer


def _answers() -> list[Any]:
    return [
        Unpaired(f"{pair.id}:{kind}", pair.prompt, getattr(pair, kind), kind == "chosen")
        for pair in some_pairs()
        for kind in ("chosen", "rejected")
    ]


def _demonstrations() -> list[Any]:
    return [Demonstration(pair.id, pair.prompt, pair.chosen) for pair in some_pairs()]


def _improvements() -> list[Any]:
    return [Improvement(pair.id, pair.prompt, pair.rejected, pair.chosen) for pair in some_pairs()]


def gradient(trainer: Any, backwards: bool) -> torch.Tensor:
    """All trained weights' gradient as one vector, of a step over all units."""
    units = trainer.train_units[::-1] if backwards else trainer.train_units
    trainer.model_wrapped.zero_grad()
    trainer.training_step(
        trainer.model_wrapped, {"units": units[trainer.accelerator.process_index :: trainer.accelerator.num_processes]}
    )
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])


def gradients(folder: Path, budget: int, backwards: bool = False) -> dict[str, torch.Tensor]:
    """The gradient under every loss."""
    found = {}
    trainer = trainer_of(DPOTrainer, folder / "pairs", budget, {"name": "sigmoid"})
    for name, settings in SETTINGS.items():
        trainer.loss = build_loss(settings)
        found[name] = gradient(trainer, backwards)
    trainer = trainer_of(KTOTrainer, folder / "answers", budget, {"name": "kto"})
    for name, settings in ANSWER_SETTINGS.items():
        trainer.loss, trainer.shift = build_unpaired_loss(settings), RewardShift(0.3) if name == "bco" else None
        found[name] = gradient(trainer, backwards)
    for name, (kind, settings) in OTHER_TRAINERS.items():
        found[name] = gradient(trainer_of(kind, folder / name, budget, settings), backwards)
    return found


if __name__ == "__main__":
    out, budget = Path(sys.argv[1]), int(sys.argv[2])
    result = gradients(out, budget)
    if os.environ.get("RANK", "0") == "0":
        torch.save(result, out / "gradients.pt")
