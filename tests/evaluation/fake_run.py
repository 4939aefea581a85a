"""A run folder as a real DPO run leaves it, made from a seed: what the report, card and comparison are tested on."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import yaml

PROMPTS = (
    ("How do I keep basil fresh?", "Put the stems in a glass of water and keep it out of the sun."),
    ("What is a good name for a grey cat?", "Ash is short, plain and easy to call."),
    ("How long should I boil an egg?", "Six minutes gives a soft yolk, ten minutes a firm one."),
    ("Write a short note to say I will be late.", "Sorry, I will be about ten minutes late. Please start without me."),
    ("Why is the sky blue?", "Air scatters blue light more than red light, so we see blue from every side."),
    ("How do I get candle wax out of a cloth?", "Chill it, break off the wax, then iron it between paper towels."),
    ("What should I pack for a day hike?", "Water, food, a map, a rain jacket and a charged phone."),
    ("How can I fall asleep faster?", "Keep the room dark and cool, and put the phone away an hour before bed."),
)
WORDY = (
    "There are numerous considerations to take into account when addressing this particular question. Firstly, it is "
    "important to acknowledge that individual circumstances vary considerably. "
)


def make_run(
    folder: Path, seed: int = 0, steps: int = 48, samples: int = 16, eval_steps: int = 12, **overrides: Any
) -> Path:
    """Write every file of a finished run into `folder` except those made from them. `overrides` go into the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(seed), sort_keys=False), encoding="utf-8")
    write_lines(folder / "metrics.jsonl", metrics(rng, steps, eval_steps))
    write_lines(folder / "samples.jsonl", [sample(rng, index) for index in range(samples)])
    (folder / "summary.json").write_text(json.dumps({**summary(seed, steps), **overrides}, indent=2), encoding="utf-8")
    (folder / "model").mkdir(exist_ok=True)
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def config(seed: int) -> dict[str, Any]:
    return {
        "recipe": "dpo",
        "description": "Direct preference optimisation on short everyday prompts",
        "method": "dpo",
        "seed": seed,
        "output_dir": "outputs/dpo/2026-01-02_03-04-05",
        "resume": None,
        "model": {"name": "smollm2-135m", "path": "smollm2-135m", "dtype": "float32"},
        "data": {"path": "everyday", "eval_path": None, "format": "auto", "split": "train"},
        "peft": {"method": "lora", "r": 16, "alpha": 32},
        "loss": {"name": "sigmoid", "beta": 0.1, "label_smoothing": 0.0},
        "training": {"learning_rate": 4e-5, "batch_size": 4, "max_steps": 48},
        "evaluation": {"prompts": 64, "score": "plain_words", "temperature": 0.7},
    }


def metrics(rng: random.Random, steps: int, eval_steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        progress = 1 - math.exp(-step / 20)
        margin = 0.9 * progress + rng.gauss(0, 0.25)
        rows.append(
            {
                "step": step,
                "epoch": step / 60,
                "loss": math.log1p(math.exp(-margin)),
                "accuracy": min(4, max(0, round(4 * (0.5 + 0.35 * progress + rng.gauss(0, 0.15))))) / 4,
                "margin": margin,
                "chosen_reward": 0.2 * progress + rng.gauss(0, 0.1),
                "rejected_reward": -0.7 * progress + rng.gauss(0, 0.1),
                "learning_rate": 4e-5 * (1 - step / (steps + 1)),
                "grad_norm": 2 + rng.random(),
                "tokens_per_second": 400 + 40 * rng.random(),
            }
        )
        if step % eval_steps == 0:
            held_out = 0.8 * progress
            rows.append(
                {
                    "step": step,
                    "eval_loss": math.log1p(math.exp(-held_out)),
                    "eval_accuracy": 0.5 + 0.25 * progress,
                    "eval_margin": held_out,
                }
            )
    return rows


def sample(rng: random.Random, index: int) -> dict[str, Any]:
    prompt, answer = PROMPTS[index % len(PROMPTS)]
    before = WORDY + answer
    return {
        "prompt": prompt,
        "before": before,
        "after": answer,
        "score_before": rng.gauss(-0.5, 0.8),
        "score_after": rng.gauss(0.3, 0.8),
        "tokens_before": len(before.split()),
        "tokens_after": len(answer.split()),
    }


def summary(seed: int, steps: int) -> dict[str, Any]:
    return {
        "recipe": "dpo",
        "model": "smollm2-135m",
        "seed": seed,
        "method": "dpo",
        "steps": steps,
        "seconds": 211.4,
        "score": {
            "name": "plain_words",
            "before": -0.12,
            "after": 0.43,
            "difference": 0.55,
            "ci95": [0.30, 0.80],
            "prompts": 64,
        },
        "pairs": {"accuracy": 0.71, "margin": 0.35, "n": 100},
        "kl": {"mean": 1.23, "se": 0.15},
        "length": {"before": 61.3, "after": 48.2},
        "fluency": {"before": -1.02, "after": -1.21},
        "tokens_per_second": 412.0,
        "peak_memory_mb": 3140.0,
        "data": {"train_pairs": 240, "eval_pairs": 100, "skipped": 2},
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "finished": "2026-01-02T03:08:00+00:00",
    }
