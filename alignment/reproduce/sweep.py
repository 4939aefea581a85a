"""Policies of a sweep, measured at some of their steps: reward, KL to the start and length of held-out answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.example import Example, Message, Preference, Response
from alignment.data.readers import load_examples
from alignment.reproduce.estimates import Curve
from alignment.reproduce.lab import Answers, Lab, Sampled
from alignment.reproduce.rows import Row

Point = dict[str, Any]  # step, and of each prompt: reward, kl (nats), tokens


def everyday(split: str, limit: int | None = None) -> list[Example]:
    """Examples of the built-in set, the first `limit` of them."""
    return list(load_examples("everyday", split=split).examples)[:limit]


def prompts_of(examples: Sequence[Example]) -> list[list[Message]]:
    return [example.prompt for example in examples]


def pair(prompt: list[Message], chosen: str, rejected: str) -> Example:
    """A preference for the first of two answers."""
    return Example(prompt, [Response.of(chosen), Response.of(rejected)], [Preference(0, 1, 1.0)])


def point(answers: Answers, prompts: Sequence[list[Message]], reward: Any, step: int = 0) -> Point:
    """The mean over a prompt's answers of each number."""
    from alignment.reproduce.asking import scored

    rewards = scored(reward, prompts, answers.texts)
    found: dict[str, Any] = {"reward": rewards, "kl": answers.log_ratio, "tokens": answers.tokens}
    return {"step": step, **{name: [round(statistics.fmean(row), 6) for row in rows] for name, rows in found.items()}}


def points_of(
    lab: Lab, run: Path, steps: Sequence[int], prompts: Sequence[list[Message]], reward: Any, sampled: Sampled
) -> list[Point]:
    """One for each of the steps after which the run kept its model."""
    return [point(lab.answers(run / f"at-{step}", prompts, sampled), prompts, reward, step) for step in steps]


def table_of(rows: Sequence[Row], key: str, job: Mapping[str, Any], at: int = -1) -> np.ndarray:
    """(seeds, prompts): a number of the points at one place, of the rows whose jobs hold `job`."""
    return np.array([row["points"][at][key] for row in matching(rows, job)], dtype=float)


def matching(rows: Sequence[Row], job: Mapping[str, Any]) -> list[Row]:
    """The rows whose jobs hold all of `job`, by seed."""
    found = [row for row in rows if job.items() <= row["job"].items()]
    return sorted(found, key=lambda row: row["job"]["seed"])


def curve_of(rows: Sequence[Row], job: Mapping[str, Any], keys: Sequence[str] = ()) -> Curve | None:
    """All points of a method, of all of its coefficients; None where it was not run.

    Args:
        keys: entries of a job that tell its coefficients apart, so that those of two seeds are in one order.
    """
    by_seed: dict[int, list[Row]] = {}
    for row in matching(rows, job):
        by_seed.setdefault(row["job"]["seed"], []).append(row)
    if not by_seed:
        return None
    ordered = [sorted(found, key=lambda row: [row["job"][key] for key in keys]) for found in by_seed.values()]

    def of(name: str) -> np.ndarray:
        return np.array([[p[name] for row in found for p in row["points"]] for found in ordered], dtype=float)

    return Curve(of("kl"), of("reward"))


def best_point(rows: Sequence[Row], job: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The point of highest reward of each seed: chosen on every second prompt, its numbers (S, P/2) on the others."""
    chosen: dict[str, list[list[float]]] = {"reward": [], "kl": [], "tokens": []}
    for seed in sorted({row["job"]["seed"] for row in matching(rows, job)}):
        points = [p for row in matching(rows, {**job, "seed": seed}) for p in row["points"]]
        best = max(points, key=lambda p: statistics.fmean(p["reward"][0::2]))
        for name, values in chosen.items():
            values.append(best[name][1::2])
    return {name: np.array(values, dtype=float) for name, values in chosen.items()}
