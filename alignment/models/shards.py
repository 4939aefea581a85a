"""Weights that FSDP has cut over the processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor


def whole(weight: Any) -> Tensor:
    """The whole of a weight of which each process holds a part; all of them must ask. A plain weight is returned."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def keep_outputs(plugin: Any) -> None:
    """Leave what a sharded model returns as it is: accelerate would round log-probs to the precision of its weights."""
    policy = plugin.mixed_precision_policy
    if getattr(policy, "output_dtype", None) is not None:
        plugin.mixed_precision_policy = replace(policy, output_dtype=None)
