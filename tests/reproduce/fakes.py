"""Rows as the tables' jobs make them, without any training: numbers of the right shape, drawn by the job."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np

from alignment.reproduce.tables import nash_md, table_named

WORDS = ["the", "answer", "is", "short", "plain", "good", "long", "odd", "with", "many", "more", "words", "than", "one"]


class Draws:
    """Random numbers of one job."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.rng = np.random.default_rng(random.Random(json.dumps(job, sort_keys=True)).getrandbits(32))

    def floats(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Any:
        return self.rng.uniform(low, high, size=shape).round(4).tolist()

    def whole(self, *shape: int, low: int = 1, high: int = 30) -> Any:
        return self.rng.integers(low, high, size=shape).tolist()

    def signs(self, *shape: int) -> Any:
        return (self.rng.integers(0, 3, size=shape) / 2).tolist()


def sweep(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    """dpo_sentiment and p3o."""
    p, steps = settings["prompts"], settings.get("at", settings.get("steps"))
    if job["method"] == "start":
        zeros = [0.0] * p
        return {"points": [{"step": 0, "reward": draw.floats(p), "kl": zeros, "tokens": draw.whole(p)}]}
    points = [
        {"step": step, "reward": draw.floats(p), "kl": draw.floats(p, high=step / 5), "tokens": draw.whole(p)}
        for step in steps
    ]
    return {"points": points}


def nash(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    if job["part"] == "games":
        return nash_md.games(2, job["answers"], 40)
    names = (["reference"] if job["policy"] == "RLHF" else []) + [job["policy"]]
    shares = [draw.rng.dirichlet([2, 2, 2], size=settings["prompts"]).round(4).tolist() for _ in names]
    return {"rows": [{"policy": n, "seed": job["seed"], "shares": s} for n, s in zip(names, shares, strict=True)]}


def cut(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    prompts = 48
    if job["row"] == "online":  # one of the seeds ends early
        return {"right": draw.floats(settings["iterations"] + 1 - (job["seed"] == 1), prompts)}
    return {"right": draw.floats(prompts), "nothing_refined": job["row"] == "ILF-DPO" and job["start"] == "chat"}


def pit(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    p = settings["held_out"]
    if job["part"] == "variant":
        return {"data": [draw.signs(p, 2), draw.signs(p, 2)], "policy": [draw.signs(p), draw.signs(p)]}
    return {"quality": draw.signs((settings["rounds"] if job["part"] == "rounds" else 1) + 1, p)}


def direct(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    p = settings["prompts"]
    return {
        "points": [
            {
                "step": step,
                "quality": draw.floats(p),
                "words": draw.whole(p),
                "reference": draw.whole(p),
                "kl": draw.floats(p),
            }
            for step in ([0] if job["algorithm"] == "SFT" else settings["steps"])
        ]
    }


def farm(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    p, method = settings["prompts"], job["method"]
    steps = {"best-of-n": settings["best_of"], "PPO": settings["at"], "expert iteration": settings["at"]}.get(
        method, [0]
    )
    return {
        "points": [
            {"step": n, "win": draw.floats(p), "score": draw.floats(p), "kl": draw.floats(p), "tokens": draw.whole(p)}
            for n in steps
        ]
    }


def diversity(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    n, k = settings["inputs"], settings["answers"]
    texts = [[" ".join(draw.rng.choice(WORDS, size=8)) for _ in range(k)] for _ in range(n)]
    measures = ("EAD", "distinct-2", "1 − self-BLEU")
    return {"texts": texts, "reward": draw.floats(n), "per_input": {name: draw.floats(n) for name in measures}}


def ratings(settings: Mapping[str, Any], job: Mapping[str, Any], draw: Draws) -> dict[str, Any]:
    if job["part"] != "policy":
        return {"pairs": 100, "different": int(draw.rng.integers(20, 80))}
    p = settings["prompts"]
    return {"wins": {"ratings": draw.signs(p), "rankings": draw.signs(p)}, "words": draw.whole(p)}


FAKES = {
    "dpo_sentiment": sweep,
    "p3o": sweep,
    "nash_md": nash,
    "cut": cut,
    "pit": pit,
    "direct_alignment": direct,
    "alpaca_farm": farm,
    "diversity": diversity,
    "ratings": ratings,
}


def rows(name: str, scale: str, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """All rows of a table at a scale, as they are read back from its file."""
    table = table_named(name)
    settings = dict(table.settings[scale])
    made = [
        {"job": job, "settings": settings, "seconds": 1.0, **FAKES[name](settings, job, Draws(job))}
        for job in table.jobs(settings, seeds)
    ]
    return json.loads(json.dumps(made))
