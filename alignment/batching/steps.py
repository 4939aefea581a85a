"""Which examples make which optimizer step: a pure function of the seed, so that a resumed run takes the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class StepSampler(Sampler[list[int]]):
    """The indices of one process for every optimizer step of a run.

    The run reads one endless stream of seeded permutations, an epoch after the other, in pieces of `batch_size`: every
    example is seen once an epoch, no step is short, and no example is dropped. A process takes its own slice of a step,
    so that one process and many take the same steps.
    """

    def __init__(
        self, examples: int, batch_size: int, steps: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.examples, self.batch_size, self.steps, self.seed = examples, batch_size, steps, seed
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, []
        for step in range(self.steps):
            chosen = []
            for place in range(step * self.batch_size, (step + 1) * self.batch_size):
                if place // self.examples != epoch:
                    epoch = place // self.examples
                    order = self.permutation(epoch)
                chosen.append(order[place % self.examples])
            yield chosen[self.rank :: self.world_size]

    def permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.examples, generator=generator).tolist()


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of `epochs` passes over `examples`; the last step borrows from the next pass."""
    return max(1, math.ceil(examples * epochs / batch_size))
