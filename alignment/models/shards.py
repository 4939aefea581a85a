"""Weights that FSDP or ZeRO-3 has cut over the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, weights that ZeRO-3 has cut are whole; all processes must enter. Others are as they are."""
    cut = [weight for weight in model.parameters() if hasattr(weight, "ds_id")]
    if not cut:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(cut):
        yield


def whole(weight: Any) -> Tensor:
    """The whole of a weight of which FSDP left each process a part; all of them must ask. A plain weight is itself."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


def keep_outputs(plugin: Any) -> None:
    """Leave what a sharded model returns as it is: accelerate would round log-probs to the precision of its weights."""
    policy = plugin.mixed_precision_policy
    if getattr(policy, "output_dtype", None) is not None:
        plugin.mixed_precision_policy = replace(policy, output_dtype=None)
