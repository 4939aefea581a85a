"""Short runs of the online trainers, for tests; on one process or under `accelerate launch` on two:
`online_runs.py OUT METHOD STEPS`.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

from alignment.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PeftConfig,
    RolloutConfig,
    RunConfig,
    TrainingConfig,
)
from alignment.data.views import Improvement, Prompt, ReferenceAnswer
from alignment.trainers.expert_iteration import ExpertIterationTrainer
from alignment.trainers.nash_md import NashMDTrainer
from alignment.trainers.online_dpo import OnlineDPOTrainer
from alignment.trainers.p3o import P3OTrainer
from alignment.trainers.pit import pit_trainer
from alignment.trainers.policy_gradient import PolicyGradientTrainer
from alignment.trainers.ppo import PPOTrainer
from tests.trainers.pairs import some_pairs

TRAINERS: dict[str, Any] = {
    "p3o": P3OTrainer,
    "nash_md": NashMDTrainer,
    "online_dpo": OnlineDPOTrainer,
    "ppo": PPOTrainer,
    "expert_iteration": ExpertIterationTrainer,
    "pit": pit_trainer,
    **dict.fromkeys(("rloo", "grpo", "reinforce"), PolicyGradientTrainer),
}
LOSSES = {"online_dpo": "sigmoid", "expert_iteration": "nll", "pit": "p3o"}


def prompts() -> list[Prompt]:
    return [Prompt(pair.id, pair.prompt, {"offset": len(pair.prompt[0]["content"])}) for pair in some_pairs(6)]


def references() -> list[ReferenceAnswer]:
    """Both answers of each pair, for PIT."""
    found = [Improvement(pair.id, pair.prompt, pair.rejected, pair.chosen) for pair in some_pairs(6)]
    return [answer for improvement in found for answer in improvement.answers()]


def short(prompt: Any, completion: str, context: Any) -> float:
    """Fewer letters are better."""
    return -len(completion) / 10


def config(method: str, steps: int, **rollout: Any) -> RunConfig:
    settings: dict[str, Any] = {"prompts": 4, "max_new_tokens": 8, "epochs": 2 if method == "p3o" else 1, **rollout}
    return RunConfig(
        method=method,
        model=ModelConfig(path="tiny"),
        data=DataConfig(eval_fraction=0.0),
        peft=PeftConfig(method="lora", r=4),
        loss={"name": LOSSES.get(method, method)},
        rollout=RolloutConfig(**settings),
        training=TrainingConfig(
            learning_rate=1e-3, batch_size=2, max_steps=steps, bf16=False, save_steps=2, scheduler="constant"
        ),
        evaluation=EvaluationConfig(prompts=0),
    )


def trainer_of(method: str, folder: Path, steps: int, feedback: Any = None, **rollout: Any) -> Any:
    from alignment.feedback.adapters import Function

    settings = config(method, steps, **rollout)
    given = feedback or Function(short)
    data = references() if method == "pit" else prompts()
    return TRAINERS[method](config=settings, train=data, folder=folder, feedback=given)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The trained weights."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm."""
    squares = [((one[name] - other[name]).norm() ** 2, one[name].norm() ** 2) for name in one]
    return math.sqrt(sum(float(a) for a, _ in squares) / sum(float(b) for _, b in squares))


if __name__ == "__main__":
    out, method, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    run = trainer_of(method, out, steps)
    run.train()
    if os.environ.get("RANK", "0") == "0":
        torch.save(weights(run), out / "weights.pt")
