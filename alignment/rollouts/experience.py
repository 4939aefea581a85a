"""What an online method keeps of a phase: prompts with their sampled completions, and what was known of them then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from alignment.batching.groups import Group, Unit
from alignment.rollouts.sampler import Rollout

Rows = tuple[tuple[float, ...], ...]  # a number for each token of each completion


@dataclass(frozen=True)
class Experience(Unit):
    """A prompt with K sampled completions."""

    texts: tuple[str, ...] = ()
    finished: tuple[bool, ...] = ()  # False: cut at max_new_tokens
    rewards: tuple[float, ...] = ()  # NaN: no verdict
    old: Rows = ()  # log-probs under the policy that sampled, as the training pass scores them
    reference: Rows = ()  # … under the reference
    extra: dict[str, Rows] = field(default_factory=dict)  # what a method keeps besides, such as values

    @classmethod
    def of(cls, name: str, rollouts: Sequence[Rollout]) -> Experience:
        """The completions of one prompt, not judged yet."""
        group = Group(rollouts[0].prompt, tuple(rollout.completion for rollout in rollouts))
        return cls(
            name,
            (group,),
            texts=tuple(rollout.text for rollout in rollouts),
            finished=tuple(rollout.finished for rollout in rollouts),
        )

    @classmethod
    def filler(cls, pad_id: int, completions: int) -> Experience:
        """Something to run where a rank has nothing; its loss is multiplied by zero."""
        nothing: Rows = ((0.0,),) * completions
        group = Group((pad_id,), ((pad_id,),) * completions)
        extra = dict.fromkeys(("values", "advantages", "returns"), nothing)
        return cls("filler", (group,), rewards=(0.0,) * completions, old=nothing, reference=nothing, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Experience:
        """The inverse of `to_dict`, after a way through JSON."""

        def fixed(value: Any) -> Any:
            return tuple(fixed(item) for item in value) if isinstance(value, list) else value

        group = stored["groups"][0]
        rest = {key: fixed(stored[key]) for key in ("texts", "finished", "rewards", "old", "reference")}
        groups = (Group(tuple(group["prompt"]), fixed(group["completions"])),)
        extra = {name: fixed(rows) for name, rows in stored["extra"].items()}
        return cls(stored["id"], groups, stored["values"], extra=extra, **rest)

    def only(self, places: Sequence[int]) -> Experience:
        """The completions at these places alone, in this order; before they are scored."""
        group = self.groups[0]
        kept: dict[str, Any] = {
            name: tuple(getattr(self, name)[place] for place in places) for name in ("texts", "finished", "rewards")
        }
        groups = (Group(group.prompt, tuple(group.completions[place] for place in places)),)
        return replace(self, groups=groups, **kept)

    def judged(self, rewards: Sequence[float], **values: float) -> Experience:
        return replace(self, rewards=tuple(rewards), values={**self.values, **values})


def token_values(units: Sequence[Any], name: str, device: torch.device) -> Tensor:
    """(N,) float32: the rows `name` (`old`, `reference` or one of `extra`) of all completions, one behind the other."""
    rows = [unit.extra[name] if name in unit.extra else getattr(unit, name) for unit in units]
    flat = [value for completions in rows for row in completions for value in row]
    return torch.tensor(flat, dtype=torch.float32).to(device, non_blocking=True)


def rewards_of(units: Sequence[Any], device: torch.device) -> Tensor:
    """(len(units), K) float32."""
    return torch.tensor([unit.rewards for unit in units], dtype=torch.float32).to(device, non_blocking=True)
