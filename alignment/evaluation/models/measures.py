"""What can be said of answers without anyone's opinion: length, repetition, refusals, likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from alignment.evaluation.metrics.answers import refusal, repetition
from alignment.evaluation.models.answers import Answers, Said
from alignment.evaluation.models.cells import NAN, Cell, Ratio, by_prompt, ratio_cell, series_cell
from alignment.evaluation.models.likelihoods import Text
from alignment.evaluation.statistics import mean_and_se

T = TypeVar("T")
Value = Callable[[Said], float]
# metric -> (its value of an answer, NaN where it is not known; whether that is a share)
OF_ANSWERS: dict[str, tuple[Value, bool]] = {
    "words": (lambda said: float(len(said.text.split())), False),
    "tokens": (lambda said: NAN if said.ids is None else float(len(said.ids)), False),
    "cut": (lambda said: NAN if said.finished is None else float(not said.finished), True),
    "empty": (lambda said: float(not said.text), True),
    "repetition": (lambda said: repetition(said.text), True),
    "refusals": (lambda said: float(refusal(said.text)), True),
}


@dataclass
class Likelihoods:
    """What is known of a model with weights; empty where it was not asked for.

    Attributes:
        own: log p of each answer under the model that gave it, by prompt, in nats.
        reference: the same under the reference.
        text: held-out text under the model.
    """

    own: list[list[float]] = field(default_factory=list)
    reference: list[list[float]] = field(default_factory=list)
    text: Text | None = None


def answer_cells(
    models: Sequence[Answers], likelihoods: Mapping[str, Likelihoods], baseline: str, seed: int = 0
) -> list[Cell]:
    """The cells of the section `answers` but for diversity, metric by metric and model by model."""
    found = [cell for metric in OF_ANSWERS for cell in _series_cells(metric, models, baseline, seed)]
    known = {one.of.name: likelihoods[one.of.name] for one in models if one.of.name in likelihoods}
    found += _kl_cells(known, baseline, seed)
    entropies = {one.of.name: ratio for one in models if (ratio := _entropy(one, known.get(one.of.name)))}
    found += _ratio_cells("entropy", entropies, baseline, seed)
    texts = {name: each.text for name, each in known.items() if each.text is not None}
    for what in ("tokens", "bytes"):
        costs: dict[str, Ratio] = {name: (text.nats, getattr(text, what)) for name, text in texts.items()}
        for cell in _ratio_cells(f"perplexity per {what[:-1]}", costs, baseline, seed, np.exp):
            found.append(replace(cell, counts={what: sum(costs[cell.model][1])}))
    return found


def _series_cells(metric: str, models: Sequence[Answers], baseline: str, seed: int) -> list[Cell]:
    value, is_share = OF_ANSWERS[metric]
    series = {one.of.name: by_prompt([[value(said) for said in row] for row in one.said]) for one in models}
    known = {name: values for name, values in series.items() if not all(map(math.isnan, values))}
    return [
        series_cell(("answers", "", metric, name), values, against(series, name, baseline), seed, is_share)
        for name, values in known.items()
    ]


def against(series: Mapping[str, T], name: str, baseline: str) -> T | None:
    """What the model `name` is held against: the baseline's, where it has one and is another."""
    return None if name == baseline else series.get(baseline)


def _kl_cells(likelihoods: Mapping[str, Likelihoods], baseline: str, seed: int) -> list[Cell]:
    """Mean of log p - log p_ref over answers, with the standard error over prompts."""
    gaps = {
        name: by_prompt([[a - b for a, b in zip(*rows, strict=True)] for rows in zip(own, reference, strict=True)])
        for name, own, reference in ((name, each.own, each.reference) for name, each in likelihoods.items())
        if own and reference
    }
    found = []
    for name, values in gaps.items():
        cell = series_cell(("answers", "", "kl", name), values, against(gaps, name, baseline), seed)
        mean, se = mean_and_se([value for value in values if not math.isnan(value)])
        found.append(replace(cell, value=mean, low=mean - 1.96 * se, high=mean + 1.96 * se, counts={"se": se}))
    return found


def _entropy(one: Answers, known: Likelihoods | None) -> Ratio | None:
    """(-log p of the drawn tokens, how many there are) of each prompt."""
    if known is None or not known.own:
        return None
    nats = [-sum(row) if row else NAN for row in known.own]
    return nats, [float(sum(len(said.ids or ()) for said in row)) for row in one.said]


def _ratio_cells(
    metric: str, ratios: Mapping[str, Ratio], baseline: str, seed: int, shown: Callable[[Any], Any] | None = None
) -> list[Cell]:
    return [
        ratio_cell(("answers", "", metric, name), ratio, against(ratios, name, baseline), seed, shown)
        for name, ratio in ratios.items()
    ]
