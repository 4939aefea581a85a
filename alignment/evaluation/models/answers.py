"""What a model answered: P prompts, and to each the answers that there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from alignment.evaluation.models.contestants import Contestant


class Said(NamedTuple):
    """One answer. Token ids and whether it came to its end are known where it was sampled here."""

    text: str
    ids: tuple[int, ...] | None = None
    finished: bool | None = None


@dataclass
class Answers:
    """The answers of one model, a list for each of the P prompts; an empty list where it has none."""

    of: Contestant
    said: list[list[Said]]
    file: str  # where they lie
    key: str  # digest of all that they depend on
    notes: list[str] = field(default_factory=list)  # what was left out, for a person

    @property
    def missing(self) -> int:
        """Prompts without an answer."""
        return sum(not each for each in self.said)

    @property
    def most(self) -> int:
        """The largest number of answers to a prompt."""
        return max(map(len, self.said), default=0)

    def each(self) -> Iterator[tuple[int, int, Said]]:
        """(prompt, number among its answers, answer)."""
        return ((p, k, said) for p, row in enumerate(self.said) for k, said in enumerate(row))
