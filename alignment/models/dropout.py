"""Whether a model is random while it trains."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

NAMES = ("dropout", "drop_path", "jitter")  # of numbers that a module keeps: rates that it hands to a function


def draws_masks(model: Any) -> bool:
    """True if a training pass of `model` draws random numbers: dropout of any kind, or noise in a router."""
    return any(_rate(module) > 0 for module in model.modules())


def _rate(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd):
        return module.p
    rates = [value for name, value in vars(module).items() if any(part in name for part in NAMES)]
    return max([rate for rate in rates if isinstance(rate, float)], default=0.0)
