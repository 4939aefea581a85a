"""What a preference loss reads and gives: log-probs in, per-example values and named metrics out.

Nothing is reduced here or in any loss; the trainer divides sums by the fixed number of examples of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Summed completion log-probs of B pairs; all (B,) float32, in nats."""

    chosen: Tensor  # log pi_theta(y_w | x): carries the gradient, as does `rejected`
    rejected: Tensor
    ref_chosen: Tensor  # log pi_ref(y_w | x); zeros where the loss has no reference
    ref_rejected: Tensor
    chosen_length: Tensor  # tokens
    rejected_length: Tensor
    p_chosen: Tensor  # probability that the chosen one is the better one; 1 for a plain label
    ratios: tuple[Tensor, Tensor] | None = None  # what a modifier put in place of the log-ratios (chosen, rejected)
    weight: Tensor | None = None  # of the pair in the loss, without gradient

    @classmethod
    def by_turns(cls, policy: Tensor, reference: Tensor, lengths: Tensor, **rest: Any) -> PairLogps:
        """Of rows (2B,) that are a chosen and a rejected completion by turns; `rest`: the other fields."""
        return cls(
            chosen=policy[0::2],
            rejected=policy[1::2],
            ref_chosen=reference[0::2],
            ref_rejected=reference[1::2],
            chosen_length=lengths[0::2],
            rejected_length=lengths[1::2],
            **rest,
        )

    @property
    def chosen_ratio(self) -> Tensor:
        """u_w = log pi_theta(y_w | x) - log pi_ref(y_w | x), or what a modifier made of it."""
        return self.chosen - self.ref_chosen if self.ratios is None else self.ratios[0]

    @property
    def rejected_ratio(self) -> Tensor:
        """u_l, the same of the rejected completion."""
        return self.rejected - self.ref_rejected if self.ratios is None else self.ratios[1]

    @property
    def mean_chosen(self) -> Tensor:
        """log pi_theta(y_w | x) / |y_w|: nats per token."""
        return self.chosen / self.chosen_length

    @property
    def mean_rejected(self) -> Tensor:
        return self.rejected / self.rejected_length

    def flipped(self) -> PairLogps:
        """The same pairs with chosen and rejected exchanged."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            ref_chosen=self.ref_rejected,
            ref_rejected=self.ref_chosen,
            chosen_length=self.rejected_length,
            rejected_length=self.chosen_length,
            ratios=None if self.ratios is None else self.ratios[::-1],
        )


@dataclass(frozen=True)
class UnpairedLogps:
    """Summed completion log-probs of B single answers; (B,) float32, in nats."""

    policy: Tensor  # log pi_theta(y | x): carries the gradient
    reference: Tensor  # log pi_ref(y | x)
    length: Tensor  # tokens
    desirable: Tensor  # bool

    @property
    def ratio(self) -> Tensor:
        """u = log pi_theta(y | x) - log pi_ref(y | x)."""
        return self.policy - self.reference


@dataclass(frozen=True)
class LossOutput:
    """Per-example values (B,) with gradient, and per-example metrics (B,) without."""

    values: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
    counted: dict[str, Tensor] = field(default_factory=dict)  # (B,) bool: whose a metric is, where it is not everyone's


class Labelled(Protocol):
    """B pairs with a label that may be uncertain."""

    @property
    def p_chosen(self) -> Tensor: ...

    def flipped(self: Pairs) -> Pairs: ...


Pairs = TypeVar("Pairs", bound=Labelled)


def soft(value: Callable[[Pairs], Tensor], pairs: Pairs, label_smoothing: float = 0.0) -> Tensor:
    """The expected value (B,) of a loss under an uncertain label: t value(pair) + (1 - t) value(flipped pair).

    t is p_chosen, blended with its flip by `label_smoothing`. `value` must be finite on both sides, since a plain label
    multiplies the other side by zero.
    """
    right = pairs.p_chosen * (1 - label_smoothing) + (1 - pairs.p_chosen) * label_smoothing
    return right * value(pairs) + (1 - right) * value(pairs.flipped())


def pair_metrics(chosen_reward: Tensor, rejected_reward: Tensor, pairs: PairLogps) -> dict[str, Tensor]:
    """What every pairwise loss reports: implicit rewards, their margin, and how often the chosen one is ahead."""
    margin = (chosen_reward - rejected_reward).detach()
    return {
        "accuracy": (margin > 0).float(),  # strict: at the start policy = reference, and nothing is ahead
        "margin": margin,
        "chosen_reward": chosen_reward.detach(),
        "rejected_reward": rejected_reward.detach(),
        "chosen_logp": pairs.mean_chosen.detach(),
        "rejected_logp": pairs.mean_rejected.detach(),
    }
