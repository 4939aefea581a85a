"""Running means of metrics that stay on the device until they are read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

NONE: Mapping[str, Tensor] = MappingProxyType({})


class MetricSums:
    """Sums of per-example values by name, and how many examples they are of."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}  # (2,): the sum, and how many values it is of

    def add(self, metrics: dict[str, Tensor], counted: Mapping[str, Tensor] = NONE) -> None:
        """Add one micro-batch: every value is (B,), one entry an example; `counted` as in `LossOutput`."""
        for name, values in metrics.items():
            values = values.detach().float()
            which = counted.get(name, torch.ones_like(values, dtype=torch.bool))
            total = torch.stack([torch.where(which, values, 0.0).sum(), which.sum().float()])
            self.sums[name] = self.sums[name] + total if name in self.sums else total

    def means(self, accelerator: Any, **host_sums: float) -> tuple[dict[str, float], dict[str, float]]:
        """(means over all examples of all ranks, sums of `host_sums` over ranks); one reduction, one host sync.

        A metric that no example has is left out.
        """
        names = sorted(self.sums)
        if accelerator.num_processes > 1:  # a rank without examples has no names yet
            from accelerate.utils import gather_object

            names = sorted(set(gather_object(names)))
        none = torch.zeros(2, device=accelerator.device)
        host = torch.tensor([float(value) for value in host_sums.values()], dtype=torch.float64)
        parts = [self.sums.get(name, none).double() for name in names]
        stacked = torch.cat([*parts, host.to(accelerator.device)])
        reduced = accelerator.reduce(stacked, "sum").tolist() if accelerator.num_processes > 1 else stacked.tolist()
        found = {name: (reduced[2 * i], reduced[2 * i + 1]) for i, name in enumerate(names)}
        means = {name: total / count for name, (total, count) in found.items() if count}
        return means, dict(zip(host_sums, reduced[2 * len(names) :], strict=True))
