"""What can be said of answers without anyone's opinion: length, repetition, refusals, diversity, likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from alignment.errors import UserError
from alignment.evaluation.agreement import Estimate
from alignment.evaluation.metrics.answers import refusal, repetition
from alignment.evaluation.metrics.diversity import across_inputs, distinct_n, ead, equal_models, per_input, self_bleu
from alignment.evaluation.models.answers import Answers, Said
from alignment.evaluation.models.cells import NAN, Cell, mean, of_a_set, ratio, share_of
from alignment.evaluation.models.likelihoods import Text
from alignment.evaluation.statistics import mean_and_se, paired_difference

Value = Callable[[Said], float]
Measure = Callable[[Sequence[str]], float]  # of a set of texts
# metric -> (its value of an answer, NaN where it is not known; whether that is a share)
OF_ANSWERS: dict[str, tuple[Value, bool]] = {
    "words": (lambda said: float(len(said.text.split())), False),
    "tokens": (lambda said: NAN if said.ids is None else float(len(said.ids)), False),
    "cut": (lambda said: NAN if said.finished is None else float(not said.finished), True),
    "empty": (lambda said: float(not said.text), True),
    "repetition": (lambda said: repetition(said.text), True),
    "refusals": (lambda said: float(refusal(said.text)), True),
}
DIVERSITY: dict[str, Measure] = {
    "distinct-1": lambda texts: distinct_n(texts, 1),
    "distinct-2": lambda texts: distinct_n(texts, 2),
    "EAD": ead,
    "self-BLEU": self_bleu,
}
# Over all inputs self-BLEU would compare every answer with hundreds of others on other matters.
ACROSS = ("distinct-1", "distinct-2", "EAD")


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
    """The cells of the section `answers`, model by model and metric by metric."""
    found = [cell for metric in OF_ANSWERS for cell in _series_cells(metric, models, baseline, seed)]
    found += _diversity_cells(models, baseline, seed)
    for one in models:
        known = likelihoods.get(one.of.name, Likelihoods())
        found += _kl_cells(one, known) + _entropy_cells(one, known, seed) + _text_cells(one, known, seed)
    return found


def by_prompt(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each prompt's known values; NaN where there is none."""
    known = [[value for value in row if math.isfinite(value)] for row in rows]
    return [sum(row) / len(row) if row else NAN for row in known]


def series_cell(
    cell: tuple[str, str, str, str], values: Sequence[float], others: Sequence[float], seed: int, is_share: bool = False
) -> Cell:
    """A mean over prompts with its interval, and its difference from the baseline's values over the same prompts."""
    own = (share_of if is_share else mean)(values, seed)
    apart = paired_difference(others, values, seed)
    return Cell(*cell, own.value, own.low, own.high, own.n, apart.difference, apart.low, apart.high)


def _series_cells(metric: str, models: Sequence[Answers], baseline: str, seed: int) -> list[Cell]:
    value, is_share = OF_ANSWERS[metric]
    series = {one.of.name: by_prompt([[value(said) for said in row] for row in one.said]) for one in models}
    known = {name: values for name, values in series.items() if not all(map(math.isnan, values))}
    missing = [NAN] * len(series[baseline])
    return [
        series_cell(
            ("answers", "", metric, name), values, missing if name == baseline else series[baseline], seed, is_share
        )
        for name, values in known.items()
    ]


def _diversity_cells(models: Sequence[Answers], baseline: str, seed: int) -> list[Cell]:
    """Per input and across inputs, where all models gave several answers, over the prompts that all have answered.

    Every set has as many answers as the smallest: what these measures give depends on it.
    """
    shared = [p for p in range(len(models[0].said)) if all(one.said[p] for one in models)]
    size = min((len(one.said[p]) for p in shared for one in models), default=0)
    if size < 2 or len(shared) < 2:
        return []
    sets = {one.of.name: [[said.text for said in one.said[p][:size]] for p in shared] for one in models}
    equal_models(sets)
    found = []
    for metric, measure in _measures().items():
        series = {name: per_input(own, measure) for name, own in sets.items()}
        for name, values in series.items():
            others = [NAN] * len(values) if name == baseline else series[baseline]
            found.append(series_cell(("answers", "", f"{metric}, per input", name), values, others, seed))
    for metric in ACROSS:
        for name, own in sets.items():
            across = of_a_set(own, partial(_across, DIVERSITY[metric]))
            found.append(_cell(f"{metric}, across inputs", name, across, {"answers": size}))
    return found


def _measures() -> dict[str, Measure]:
    """Those of DIVERSITY whose packages are installed."""
    with suppress(UserError):
        self_bleu([])
        return DIVERSITY
    return {name: measure for name, measure in DIVERSITY.items() if name != "self-BLEU"}


def _across(measure: Measure, rows: Sequence[Sequence[str]]) -> float:
    """The mean over the places among a prompt's answers."""
    return float(np.mean(across_inputs(rows, measure)))


def _kl_cells(one: Answers, known: Likelihoods) -> list[Cell]:
    """Mean of log p - log p_ref over answers, with the standard error over prompts."""
    if not known.own or not known.reference:
        return []
    gaps = by_prompt(
        [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(known.own, known.reference, strict=True)]
    )
    found = mean_and_se([gap for gap in gaps if not math.isnan(gap)])
    n = sum(not math.isnan(gap) for gap in gaps)
    estimate = Estimate(found.mean, found.mean - 1.96 * found.se, found.mean + 1.96 * found.se, n)
    return [_cell("kl", one.of.name, estimate, {"se": found.se})]


def _entropy_cells(one: Answers, known: Likelihoods, seed: int) -> list[Cell]:
    """Mean of -log p of the tokens that were drawn."""
    if not known.own:
        return []
    nats = [-sum(row) if row else NAN for row in known.own]
    tokens = [float(sum(len(said.ids or ()) for said in row)) for row in one.said]
    return [_cell("entropy", one.of.name, ratio(nats, tokens, seed))]


def _text_cells(one: Answers, known: Likelihoods, seed: int) -> list[Cell]:
    if known.text is None:
        return []
    found = []
    for what, units in (("token", known.text.tokens), ("byte", known.text.bytes)):
        cost = ratio(known.text.nats, units, seed)
        value, low, high = (math.exp(end) for end in cost[:3])
        estimate = Estimate(value, low, high, cost.n)
        found.append(_cell(f"perplexity per {what}", one.of.name, estimate, {f"{what}s": sum(units)}))
    return found


def _cell(metric: str, name: str, found: Estimate, counts: dict[str, float] | None = None) -> Cell:
    return Cell("answers", "", metric, name, *found, counts=counts or {})
