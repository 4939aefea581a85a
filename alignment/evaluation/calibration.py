"""How far probabilities of preference can be trusted: accuracy, calibration, and accuracy by length difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from alignment.evaluation.statistics import share_interval

BINS = 10
# Quarters of held-out pairs by length are shown from this many pairs on.
FEWEST_FOR_QUARTERS = 20


def right(logits: Sequence[float], p_chosen: Sequence[float]) -> np.ndarray:
    """(n,) how far each verdict is right, in [0, 1]: p_chosen where the chosen answer is ahead, 1/2 for a tie.

    Args:
        logits: (n,) log-odds that the chosen answer is the better one.
        p_chosen: (n,) how sure the label is.
    """
    ahead, label = np.sign(np.asarray(logits, dtype=float)), np.asarray(p_chosen, dtype=float)
    return 0.5 + ahead * (label - 0.5)


def calibration(logits: Sequence[float], p_chosen: Sequence[float], bins: int = BINS) -> dict[str, Any]:
    """Expected calibration error and reliability curve of two-sided verdicts.

    A verdict has the confidence max(p, 1 - p) in [1/2, 1], p = sigmoid(logit), and is right or not. ECE is the mean
    over verdicts of |accuracy - mean confidence| of its bin (Guo et al., 1706.04599, eq. 3), over `bins` of equal
    width.

    Returns:
        {"ece", "bins": [{"confidence", "accuracy", "n", "ci95"}, …]}, empty bins left out.
    """
    confidence = expit(np.abs(np.asarray(logits, dtype=float)))
    outcome = right(logits, p_chosen)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    found, ece = [], 0.0
    for number in range(bins):
        chosen = place == number
        n = int(chosen.sum())
        if n:
            mean, accuracy = float(confidence[chosen].mean()), float(outcome[chosen].mean())
            ece += n / len(outcome) * abs(accuracy - mean)
            low, high = share_interval(accuracy, n)
            found.append({"confidence": mean, "accuracy": accuracy, "n": n, "ci95": [low, high]})
    return {"ece": ece if found else math.nan, "bins": found}


def by_length(logits: Sequence[float], p_chosen: Sequence[float], longer: Sequence[int]) -> list[dict[str, Any]]:
    """Accuracy by how many tokens longer the chosen answer is, in quarters of the pairs (halves of few).

    Returns:
        [{"from", "to" (tokens, both included), "accuracy", "n", "ci95"}, …], from much shorter to much longer.
    """
    difference, outcome = np.asarray(longer), right(logits, p_chosen)
    parts = 4 if len(difference) >= FEWEST_FOR_QUARTERS else 2
    found = []
    for chosen in np.array_split(np.argsort(difference, kind="stable"), parts):
        if len(chosen):
            accuracy = float(outcome[chosen].mean())
            ends = {"from": int(difference[chosen[0]]), "to": int(difference[chosen[-1]])}
            low, high = share_interval(accuracy, len(chosen))
            found.append({**ends, "accuracy": accuracy, "n": len(chosen), "ci95": [low, high]})
    return found
