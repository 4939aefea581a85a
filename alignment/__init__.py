"""Align a causal language model with preferences: `DPOTrainer(model, config, train=…, eval=…).train()`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignment.config import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    PeftConfig,
    ReferenceConfig,
    RunConfig,
    TrainingConfig,
)
from alignment.errors import UserError

if TYPE_CHECKING:
    from alignment.rollouts.improver import Improver, ImprovingSampler
    from alignment.trainers.dpo import DPOTrainer
    from alignment.trainers.kto import KTOTrainer

__version__ = "0.1.0"

__all__ = [
    "DPOTrainer",
    "DataConfig",
    "EvaluationConfig",
    "Improver",
    "ImprovingSampler",
    "KTOTrainer",
    "ModelConfig",
    "PeftConfig",
    "ReferenceConfig",
    "RunConfig",
    "TrainingConfig",
    "UserError",
]

# What imports torch waits until it is asked for.
_LAZY = {
    "DPOTrainer": "alignment.trainers.dpo",
    "Improver": "alignment.rollouts.improver",
    "ImprovingSampler": "alignment.rollouts.improver",
    "KTOTrainer": "alignment.trainers.kto",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'alignment' has no attribute '{name}'")
