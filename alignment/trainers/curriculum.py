"""Whose answers PIT improves in a phase: first the data's, then the policy's (2310.00898, sec. 3.3, eq. 4 and 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from alignment.config import PITConfig


@dataclass
class Curriculum:
    """A function of the settings and of the mean gaps so far, so that a resumed run goes on with the same answers."""

    references: str  # curriculum | data | policy | mixed
    begin: int | None = None  # the first phase of the policy's answers; None: the plateau of the mean gap decides
    patience: int = 1  # of the plateau
    gaps: list[float] = field(default_factory=list)  # mean gap of each phase so far

    @classmethod
    def of(cls, settings: PITConfig, phases: int, phases_of_epoch: float) -> Curriculum:
        """The curriculum of a run.

        Args:
            phases: of the whole run.
            phases_of_epoch: that see each answer of the data once.
        """
        if settings.switch == "plateau":
            return cls(settings.references, None, max(1, round(settings.switch_at)))
        length = phases if settings.switch == "share" else phases_of_epoch
        return cls(settings.references, max(1, round(settings.switch_at * length)))

    def turn(self, phase: int) -> tuple[bool, int]:
        """(whether it is the policy's answers that `phase` improves, how many phases of that kind came before)."""
        if self.references == "mixed":
            return phase % 2 == 1, phase // 2
        if self.references != "curriculum":
            return self.references == "policy", phase
        begin = self.begin if self.begin is not None else plateau(self.gaps[:phase], self.patience)
        return (False, phase) if begin is None or phase < begin else (True, phase - begin)

    def note(self, phase: int, gap: float) -> None:
        """The mean gap of what `phase` sampled; of a phase that is made again, the last one counts."""
        self.gaps[phase:] = [gap]


def plateau(gaps: Sequence[float], patience: int) -> int | None:
    """The phase behind the first `patience` phases in a row without a higher mean gap than before; None: not yet."""
    best, waited = -math.inf, 0
    for phase, gap in enumerate(gaps):
        best, waited = (gap, 0) if gap > best else (best, waited + 1)
        if waited == patience:
            return phase + 1
    return None
