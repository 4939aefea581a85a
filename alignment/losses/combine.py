"""A loss as a run uses it: a weighted sum of pairwise losses, under the modifiers that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alignment.losses.modifiers import diverged
from alignment.losses.record import LossOutput, PairLogps


@dataclass(frozen=True)
class Term:
    """One loss of a sum; `weight` multiplies its values."""

    name: str
    loss: Callable[[PairLogps], LossOutput]
    weight: float = 1.0
    needs_reference: bool = True


@dataclass(frozen=True)
class PairLoss:
    """PairLogps -> LossOutput, and what the trainer must hand over for it."""

    terms: tuple[Term, ...]
    divergence: str = "reverse_kl"
    divergence_alpha: float = 0.5
    weighting: str | None = None  # "wpo": the pairs' `weight` is wanted
    ld_alpha: float = 1.0  # below 1: log-ratios summed with LD-DPO's token weights are wanted

    @property
    def needs_reference(self) -> bool:
        return any(term.needs_reference for term in self.terms)

    def __call__(self, pairs: PairLogps) -> LossOutput:
        output = weighted_sum(self.terms, diverged(pairs, self.divergence, self.divergence_alpha))
        if pairs.weight is None:
            return output
        return LossOutput(output.values * pairs.weight, output.metrics | {"pair_weight": pairs.weight})


def weighted_sum(terms: tuple[Term, ...], pairs: PairLogps) -> LossOutput:
    """Sum of weight * values (B,). Metrics: the first term's; of several terms also their own values, `loss_NAME`."""
    outputs = [term.loss(pairs) for term in terms]
    values = sum(term.weight * output.values for term, output in zip(terms[1:], outputs[1:], strict=True))
    values = terms[0].weight * outputs[0].values + values
    metrics = dict(outputs[0].metrics)
    if len(terms) > 1:
        for name, output in zip(_names(terms), outputs, strict=True):
            metrics[f"loss_{name}"] = output.values.detach()
    return LossOutput(values, metrics)


def _names(terms: tuple[Term, ...]) -> list[str]:
    """The terms' names, numbered from the second of a name on."""
    seen: dict[str, int] = {}
    names = []
    for term in terms:
        seen[term.name] = seen.get(term.name, 0) + 1
        names.append(term.name if seen[term.name] == 1 else f"{term.name}_{seen[term.name]}")
    return names
