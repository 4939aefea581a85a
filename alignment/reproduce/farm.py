"""A small AlpacaFarm: simulated annotators label pairs of the start's answers, and methods learn from the labels.

The start (`tiny`) stands for SFT. A pool of annotators of different tastes, each a plain-words rule of its own, labels;
for training one of them is drawn for each pair, and a quarter of the labels is flipped (2305.14387). Without noise one
annotator labels everything by its own taste.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.data.example import Example, Message
from alignment.data.views import Demonstration, Judged
from alignment.feedback.adapters import BradleyTerry
from alignment.feedback.panels import AnnotatorPool
from alignment.feedback.protocols import Judge
from alignment.feedback.rules import PlainWords
from alignment.feedback.wrappers import Noise
from alignment.reproduce.lab import Lab, Sampled
from alignment.reproduce.sweep import everyday, pair, prompts_of

NOISY, CLEAN = "pool with noise", "one annotator"
FLIPPED = 0.25
SAMPLES = 4  # answers to a training prompt: two pairs
WORSE = "It is the worse of two answers."
# What the tables of the farm have in common, so that they share their runs.
SETTINGS: dict[str, dict[str, Any]] = {
    "smoke": {"train": 32, "tokens": 16, "scorer_steps": 3, "steps": 4, "at": [2, 4], "offline_steps": 3, "phase": 8},
    "small": {
        "train": 282,
        "tokens": 32,
        "scorer_steps": 60,
        "steps": 120,
        "at": [15, 30, 60, 90, 120],
        "offline_steps": 60,
        "phase": 16,
    },
}
RATE = ["training.learning_rate=1e-3", "training.scheduler=constant", "evaluation.prompts=0", "training.batch_size=8"]


def pool() -> AnnotatorPool:
    """Annotators that differ in how long an answer may be, and which words are long."""
    tastes = [PlainWords(), PlainWords(target=12), PlainWords(target=30, long_word=8), PlainWords(long_word=6)]
    return AnnotatorPool([BradleyTerry(taste) for taste in tastes])


def annotators(labels: str) -> Judge:
    """Who labels for training: P(first preferred)."""
    return Noise(pool(), FLIPPED) if labels == NOISY else BradleyTerry(PlainWords(), temperature=1e-6)


def labelled(lab: Lab, settings: Mapping[str, Any], labels: str, seed: int) -> list[Example]:
    """Pairs of the start's answers to the training prompts, the preferred one first; equal answers are none."""
    prompts = prompts_of(everyday("train", settings["train"]))
    own = lab.answers("tiny", prompts, Sampled(settings["tokens"], SAMPLES, seed=2000 + seed))
    rows = [
        (prompt, texts[at], texts[at + 1])
        for prompt, texts in zip(prompts, own.texts, strict=True)
        for at in range(0, SAMPLES, 2)
        if texts[at] and texts[at + 1] and texts[at] != texts[at + 1]
    ]
    chances = annotators(labels).prefer(*map(list, zip(*rows, strict=True)))
    draw = random.Random(seed)
    sides = [(a, b) if draw.random() < chance else (b, a) for (_, a, b), chance in zip(rows, chances, strict=True)]
    return [pair(row[0], better, worse) for row, (better, worse) in zip(rows, sides, strict=True)]


def reward_model(lab: Lab, settings: Mapping[str, Any], labels: str, seed: int) -> Path:
    """A reward model of the labels."""
    pairs = labelled(lab, settings, labels, seed)
    own = [f"training.max_steps={settings['scorer_steps']}", "training.learning_rate=1e-3", "training.batch_size=16"]
    return lab.run("reward", seed, *own, train=pairs, held_out=pairs[:32])


def online(lab: Lab, settings: Mapping[str, Any], recipe: str, labels: str, seed: int, *overrides: str) -> Path:
    """A policy trained on the reward model of the labels; `at-STEP` of settings["at"] are kept."""
    scorer = reward_model(lab, settings, labels, seed)
    own = [*RATE, f"training.max_steps={settings['steps']}", f"rollout.prompts={settings['phase']}"]
    own += [f"rollout.max_new_tokens={settings['tokens']}", "rollout.batch_size=128"]
    own += ["feedback=reward_model", f"feedback.path={scorer}", *overrides]
    return lab.run(recipe, seed, *own, at=settings["at"])


def ppo(lab: Lab, settings: Mapping[str, Any], labels: str, seed: int, kl_coef: float = 0.05) -> Path:
    """PPO on the reward model."""
    return online(lab, settings, "ppo", labels, seed, f"loss.kl_coef={kl_coef}", "rollout.epochs=2")


def offline(lab: Lab, settings: Mapping[str, Any], method: str, labels: str, seed: int) -> Path:
    """DPO, FeedME or reward conditioning on the labelled pairs."""
    pairs = labelled(lab, settings, labels, seed)
    steps = f"training.max_steps={settings['offline_steps']}"
    if method == "DPO":
        return lab.run("dpo", seed, *RATE, steps, "loss.beta=0.1", train=pairs, held_out=pairs[:8])
    if method == "binary FeedME":
        preferred = [Demonstration(f"{n}", each.prompt, each.responses[0].messages) for n, each in enumerate(pairs)]
        return lab.run("sft", seed, *RATE, steps, train=preferred, held_out=preferred[:8])
    told = [
        Judged(f"{n}-{good}", each.prompt, answer.messages, None if good else WORSE, good)
        for n, each in enumerate(pairs)
        for answer, good in zip(each.responses, (True, False), strict=True)
    ]
    return lab.run("cut", seed, *RATE, steps, "loss=conditional", train=told, held_out=told[:8])


def conditioned(prompts: Sequence[list[Message]]) -> list[list[Message]]:
    """The prompts as a reward-conditioned policy is asked: for an answer that satisfies."""
    from alignment.data.judgment_prompts import load_judgment_template

    template = load_judgment_template("chat")
    return [template.with_judgment(prompt, template.positive) for prompt in prompts]


def best_places(scores: Sequence[Sequence[float]], n: int) -> list[int]:
    """The place of the best of the first n answers to each prompt."""
    return [max(range(n), key=lambda at: row[at]) for row in scores]


def scores_of(scorer: Path, prompts: Sequence[list[Message]], texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """A reward model's score of every answer."""
    from alignment.feedback.trained import RewardModel
    from alignment.reproduce.asking import scored

    return scored(RewardModel(str(scorer)), prompts, texts)


def wins(prompts: Sequence[list[Message]], texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """P(text preferred to the other one) by the pool without noise; equal texts are a half."""
    found = pool().prefer(list(prompts), list(texts), list(others))
    return [round(0.5 if a == b else p, 6) for p, a, b in zip(found, texts, others, strict=True)]
