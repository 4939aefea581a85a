"""Which examples make which optimizer step: a pure function of the seed, so that a resumed run takes the same ones."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class StepSampler(Sampler[list[int]]):
    """The indices of one process for every optimizer step of a run.

    The run reads one endless stream of seeded permutations, an epoch after the other, in pieces of `batch_size`: every
    example is seen once an epoch, no step is short, and no example is dropped. A process takes its own share of a step,
    as `balanced` cuts it, so that one process and many take the same steps and none waits long for another.

    Args:
        lengths: tokens of each example; None counts every example alike.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.examples, self.batch_size, self.steps, self.seed = examples, batch_size, steps, seed
        self.rank, self.world_size, self.lengths = rank, world_size, lengths
        self._kept: dict[int, list[int]] = {}  # the permutation that was asked for last

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            indices = self.step(step)
            lengths = [1 if self.lengths is None else int(self.lengths[index]) for index in indices]
            yield [indices[place] for place in balanced(lengths, self.world_size)[self.rank]]

    def step(self, step: int) -> list[int]:
        """The indices of all processes for one step."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self.permutation(place // self.examples)[place % self.examples] for place in places]

    def permutation(self, epoch: int) -> list[int]:
        if epoch not in self._kept:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._kept = {epoch: torch.randperm(self.examples, generator=generator).tolist()}
        return self._kept[epoch]


def balanced(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """The places of `lengths`, shared out to `ranks` of nearly the same sum: the longest first, each to the emptiest.

    A function of its arguments alone, so every rank knows every share. Shares are in order and may be empty.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    filled = [(0, 0, rank) for rank in range(ranks)]  # tokens, then examples, so that equal ones go round
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        tokens, count, rank = filled[0]
        heapq.heapreplace(filled, (tokens + lengths[place], count + 1, rank))
        shares[rank].append(place)
    return [sorted(share) for share in shares]


def steps_of(examples: int, batch_size: int, epochs: float) -> int:
    """Optimizer steps of `epochs` passes over `examples`; the last step borrows from the next pass."""
    return max(1, math.ceil(examples * epochs / batch_size))
