"""The unit of work: a prompt and its completions as token ids, and the groups that one example links."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

DIGEST_BYTES = 8


@dataclass(frozen=True)
class Group:
    """One prompt and its K completions, as token ids. None of them is empty."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("a group needs a prompt of at least one token")
        if not self.completions or not all(self.completions):
            raise ValueError("a group needs completions, each of at least one token")

    @property
    def shared_length(self) -> int:
        """Tokens when the prompt is encoded once for all completions."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def padded_lengths(self) -> list[int]:
        """Tokens of each row when every completion brings its own prompt."""
        return [len(self.prompt) + len(completion) for completion in self.completions]


@dataclass(frozen=True)
class Unit:
    """The groups that one example links; never split over micro-batches.

    `values` holds the example's numbers that a loss needs (p_chosen, margin, …). `aside` are groups that are scored
    without gradient (KTO's for a statistic of the whole optimizer step, CUT's to compare with), and never trained.
    """

    id: str
    groups: tuple[Group, ...]
    values: dict[str, float] = field(default_factory=dict)
    aside: tuple[Group, ...] = ()

    @property
    def useful_tokens(self) -> int:
        """Prompt once, completions once: what throughput is counted in."""
        return sum(group.shared_length for group in self.groups)

    def tokens(self, layout: str) -> int:
        """What the model computes for the groups in `layout`, padding aside."""
        return self.useful_tokens if layout == "shared" else sum(sum(group.padded_lengths) for group in self.groups)

    def digest(self) -> bytes:
        """DIGEST_BYTES that tell its content from another's: token ids and values, not its id."""
        content = repr((self.groups, self.aside, sorted(self.values.items())))
        return hashlib.blake2b(content.encode(), digest_size=DIGEST_BYTES).digest()

    @property
    def completions(self) -> int:
        return sum(len(group.completions) for group in self.groups)
