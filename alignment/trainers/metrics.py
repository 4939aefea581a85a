"""Running means of metrics that stay on the device until they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class MetricSums:
    """Sums of per-example values by name, and how many examples they are of."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.examples = 0

    def add(self, metrics: dict[str, Tensor]) -> None:
        """Add one micro-batch: every value is (B,), one entry an example."""
        for name, values in metrics.items():
            total = values.detach().float().sum()
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.examples += len(next(iter(metrics.values()), ()))  # a loss of one's own may have none

    def means(self, accelerator: Any, **host_sums: float) -> tuple[dict[str, float], dict[str, float]]:
        """(means over all examples of all ranks, sums of `host_sums` over ranks); one reduction, one host sync."""
        names = sorted(self.sums)
        if accelerator.num_processes > 1:  # a rank without examples has no names yet
            from accelerate.utils import gather_object

            names = sorted(set(gather_object(names)))
        values = [self.sums.get(name, torch.zeros((), device=accelerator.device)).double() for name in names]
        host = [torch.tensor(float(value), dtype=torch.float64) for value in (self.examples, *host_sums.values())]
        stacked = torch.stack([value.to(accelerator.device) for value in (*values, *host)])
        reduced = accelerator.reduce(stacked, "sum").tolist() if accelerator.num_processes > 1 else stacked.tolist()
        examples = max(reduced[len(names)], 1.0)
        means = {name: reduced[i] / examples for i, name in enumerate(names)}
        return means, dict(zip(host_sums, reduced[len(names) + 1 :], strict=True))
