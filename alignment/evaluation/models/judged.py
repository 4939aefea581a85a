"""Scores and duels as cells: means, win rates with and without length, p-values, and the ranking of all models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from alignment.errors import UserError
from alignment.evaluation.metrics.length_controlled import instruction_difficulty, length_controlled
from alignment.evaluation.metrics.multiple import holm, paired_p_value
from alignment.evaluation.metrics.ranking import Standing, bradley_terry
from alignment.evaluation.metrics.win_rates import win_rate
from alignment.evaluation.models.cells import NAN, Cell, by_prompt, series_cell
from alignment.evaluation.models.duels import Duel, Scores

OTHERS = 2  # models besides baseline and the one that is controlled, from which the difficulty of instructions is taken


def score_cells(name: str, scores: Mapping[str, Scores], baseline: str, seed: int = 0) -> list[Cell]:
    """Each model's mean score, and its difference from the baseline's over the prompts that both have a score for."""
    series = {model: by_prompt(rows) for model, rows in scores.items()}
    found = []
    for model, values in series.items():
        others = None if model == baseline else series[baseline]
        cell = series_cell(("score", name, "mean", model), values, others, seed)
        answers = [score for row in scores[model] for score in row]
        counts: dict[str, float] = {"answers": len(answers), "no verdict": sum(map(math.isnan, answers))}
        found.append(replace(cell, counts=counts))
    return found


def duel_cells(name: str, duels: Sequence[Duel], baseline: str, prompts: int, seed: int = 0) -> list[Cell]:
    """Win rates against the baseline, plain and length-controlled."""
    against = [
        duel.turned() if duel.first == baseline else duel for duel in duels if baseline in (duel.first, duel.second)
    ]
    found = []
    for duel in against:
        plain = win_rate(duel.outcomes, duel.first, baseline, duel.prompts, seed)
        counts: dict[str, float] = {"wins": plain.wins, "ties": plain.ties, "losses": plain.losses}
        counts |= {"no verdict": plain.no_verdict, "orders disagree": duel.disagree if duel.both_orders else NAN}
        outcomes = duel.by_prompt(prompts)
        p = paired_p_value([0.5] * prompts, outcomes, seed)
        n = sum(not math.isnan(outcome) for outcome in outcomes)
        cell = ("judge", name, "win rate", duel.first)
        found.append(Cell(*cell, plain.rate, plain.low, plain.high, n, p=p, counts=counts))
        found.append(_controlled(name, duel, [other for other in against if other is not duel], prompts, seed))
    return found


def _controlled(name: str, duel: Duel, others: Sequence[Duel], prompts: int, seed: int) -> Cell:
    """The length-controlled win rate; with the difficulty of instructions, where other models say something of it."""
    rows = sorted(set(duel.prompts))
    outcomes, (own, theirs) = duel.by_prompt(prompts), _mean_lengths(duel, prompts)
    difficulty = None
    if len(others) >= OTHERS:
        lengths = [_mean_lengths(other, prompts) for other in others]
        table = np.array([other.by_prompt(prompts) for other in others])
        # A model's own baseline length: where it has no answer, it has no verdict either, and lengths are 0.
        difficulty = instruction_difficulty(table, np.array([a - b for a, b in lengths]), np.zeros(prompts))[rows]
    found = length_controlled([outcomes[row] for row in rows], own[rows], theirs[rows], difficulty, seed)
    counts = {"length effect": found.length_effect, "difficulty from": len(others) if difficulty is not None else 0}
    return Cell(
        "judge", name, "length-controlled", duel.first, found.rate, found.low, found.high, found.n, counts=counts
    )


def _mean_lengths(duel: Duel, prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean characters of both models' answers to each prompt, each (prompts,); 0 where there are none."""
    rows = np.array(duel.prompts, dtype=np.int64)
    lengths = np.array(duel.lengths, dtype=np.float64).reshape(-1, 2)
    counts = np.maximum(1, np.bincount(rows, minlength=prompts))
    first, second = (np.bincount(rows, weights=lengths[:, place], minlength=prompts) / counts for place in (0, 1))
    return first, second


def games(duels: Sequence[Duel], prompts: int) -> dict[tuple[str, str], list[float]]:
    """The outcomes of every two models, one value a prompt, as rankings take them."""
    return {(duel.first, duel.second): duel.by_prompt(prompts) for duel in duels}


def ranking(duels: Sequence[Duel], prompts: int, seed: int = 0) -> tuple[list[Standing], str]:
    """(the models, best first; why there is no ranking, where there is none). Of three or more models."""
    if len({model for duel in duels for model in (duel.first, duel.second)}) < 3:
        return [], ""
    try:
        return bradley_terry(games(duels, prompts), seed=seed), ""
    except UserError as error:
        return [], str(error)


def adjusted(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells with Holm's adjusted p-values: scores and judges are one family, what is said of answers another.

    So what is measured of answers besides does not make it harder to see which model is better.
    """
    found = list(cells)
    for sections in (("score", "judge"), ("answers",)):
        places = [place for place, cell in enumerate(cells) if cell.section in sections]
        for place, value in zip(places, holm([cells[place].p for place in places]), strict=True):
            found[place] = replace(found[place], p_adjusted=float(value))
    return found
