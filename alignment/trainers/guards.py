"""What watches an online run: the KL budget, and answers that grow all alike or repeat themselves."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.config import RolloutConfig
from alignment.feedback.rules import Repetition

RAISE = 1.5  # what the coefficient of the KL is multiplied with where the budget is overdrawn
REPEATED = 0.5  # share of repeated word triples, over a phase, that is worth a warning
ALIKE = 0.5  # share of answers that are word for word another one


class Guards:
    """Looks at each phase's samples.

    Args:
        settings: `kl_limit` and `on_kl_limit`, and the schedule's end.
        kl_coef: the coefficient of the KL at the start.
    """

    def __init__(self, settings: RolloutConfig, kl_coef: float) -> None:
        self.settings, self.start = settings, kl_coef
        self.raised = 1.0  # what the schedule's coefficient is multiplied with
        self.stop = False
        self.said: list[str] = []

    def coefficient(self, progress: float) -> float:
        """The coefficient of the KL at this share of the run, in [0, 1]."""
        end = self.settings.kl_coef_end
        scheduled = self.start if end is None else self.start + progress * (end - self.start)
        return scheduled * self.raised

    def look(self, kl: float, texts: Sequence[str]) -> None:
        """`kl` nats an answer from the reference, over a phase; `said` are the warnings to show."""
        self.said = []
        limit = self.settings.kl_limit
        if limit is not None and kl > limit:
            self._overdrawn(kl, limit)
        repeated = -sum(Repetition(n=3).score([[]] * len(texts), texts)) / len(texts)
        if repeated > REPEATED:
            self.said.append(f"warning: {100 * repeated:.0f} % of the word triples sampled now are repetitions")
        alike = 1 - len(set(texts)) / len(texts)
        if alike > ALIKE:
            self.said.append(f"warning: {100 * alike:.0f} % of the answers sampled now are copies of another one")

    def _overdrawn(self, kl: float, limit: float) -> None:
        where = f"the KL is {kl:.1f} nats an answer, rollout.kl_limit={limit:g}"
        if self.settings.on_kl_limit == "stop":
            self.stop = True
            self.said.append(f"{where}: stopping, with a checkpoint")
        elif self.settings.on_kl_limit == "raise":
            self.raised *= RAISE
            self.said.append(f"{where}: the coefficient of the KL is now {self.raised:.2f} times as high")
        else:
            self.said.append(f"warning: {where}")
