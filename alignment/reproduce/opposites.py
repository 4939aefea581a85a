"""Answers whose quality is known, and the stages of PIT on them, with its ablations.

A prompt asks for the opposites of three words, and an answer pairs each word with one: "hot cold, up big, old new".
Its quality is the share of the words that stand beside their opposite. Of a pair the rejected answer has two or three
errors and the chosen one fewer, but mostly some: imitation alone stops short. Every stage takes its own third of the
prompts.
"""

from __future__ import annotations

import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.example import Example, Preference, Response
from alignment.reproduce.lab import train_run

OPPOSITES = {"hot": "cold", "big": "small", "old": "new", "up": "down"}
OPPOSITES |= {second: first for first, second in OPPOSITES.items()}
ASKS = (
    *("Opposites of {}?", "Name the opposites of {}.", "What are the opposites of {}?", "{}: the opposites, please."),
    *("I need the opposites of {}.", "Give me the opposites of {}.", "Tell me the opposites of {}.", "And {}?"),
)
WORDS = sorted(OPPOSITES)
ASKED = 3  # words of a prompt
TOKENS = 16

# variant -> overrides of recipe=pit; None: the improver as imitation left it
VARIANTS: dict[str, list[str] | None] = {
    "imitation alone": None,
    "PIT": [],
    "first stage alone": ["pit.references=data"],
    "second stage alone": ["pit.references=policy"],
    "no curriculum": ["pit.references=mixed"],
    "difference of rewards": [],  # its feedback
}


def quality(prompt: Sequence[dict[str, str]], answer: str) -> float:
    """The share of the asked words that stand beside their opposite; of more than three pieces, the share of these."""
    words = [word for word in re.findall("[a-z]+", prompt[-1]["content"]) if word in OPPOSITES]
    pieces = [" ".join(piece.strip(" .").lower().split()) for piece in answer.split(",")]
    return sum(f"{word} {OPPOSITES[word]}" in pieces for word in words) / max(ASKED, len(pieces))


def answer_with(words: Sequence[str], errors: int, draw: random.Random) -> str:
    found = [OPPOSITES[word] for word in words]
    for place in draw.sample(range(len(words)), errors):
        found[place] = draw.choice([word for word in WORDS if word != found[place]])
    return ", ".join(f"{word} {other}" for word, other in zip(words, found, strict=True))


def examples(count: int, seed: int, without: Sequence[Example] = ()) -> list[Example]:
    """So many pairs, each to a prompt of its own, none of them one of `without`."""
    draw, found = random.Random(seed), list[Example]()
    seen = {example.prompt[0]["content"] for example in without}
    while len(found) < count:
        words = draw.sample(WORDS, ASKED)
        text = draw.choice(ASKS).format(", ".join(words))
        if text in seen or any(OPPOSITES[word] in words for word in words):
            continue
        seen.add(text)
        errors = draw.choice([2, 3])
        fewer = draw.choice([0, *[draw.randrange(1, errors)] * 3])  # a quarter of the chosen answers is perfect
        answers = [Response.of(answer_with(words, number, draw)) for number in (fewer, errors)]
        meta = {"id": f"{seed}-{len(found)}"}
        found.append(Example([{"role": "user", "content": text}], answers, [Preference(0, 1, 1.0)], meta))
    return found


@dataclass(frozen=True)
class Training:
    """How much of everything."""

    pairs: int = 1200  # training pairs of all three parts
    held_out: int = 100  # held-out pairs
    steps_sft: int = 80
    steps_scorer: int = 300
    steps_policy: int = 6  # of P3O: few, so that the policy's answers leave something to improve
    steps: int = 60  # of PIT
    learning_rate: float = 1e-4  # of P3O, and of PIT
    kl: float = 0.1  # weight of the KL
    temperature: float = 1.0  # of the improver when it is measured


class Stages:
    """The stages of one seed, each trained when it is first asked for and kept in a folder."""

    def __init__(self, folder: Path, seed: int, training: Any) -> None:
        self.folder, self.seed, self.training = folder, seed, training
        self.held_out = examples(training.held_out, 1)
        self.data = examples(training.pairs, 2, self.held_out)

    def train(self, name: str, recipe: str, *overrides: str, feedback: Any = None) -> Path:
        """The run folder of a stage."""
        run = self.folder / name
        if not (run / "model").is_dir():
            shared = ["model=tiny", "peft=none", "training.bf16=false", f"seed={self.seed}", "evaluation.score=null"]
            train_run(run, recipe, [*shared, *overrides], feedback, self.data, self.held_out)
        return run

    def imitated(self, recipe: str) -> Path:
        settings = [f"training.max_steps={self.training.steps_sft}", "training.batch_size=32"]
        return self.train(recipe, recipe, *settings, "training.learning_rate=2e-3", "data.part=sft")

    def scorer(self, recipe: str, start: Path) -> Path:
        settings = [f"training.max_steps={self.training.steps_scorer}", "training.batch_size=16"]
        return self.train(
            recipe, recipe, f"model.path={start}", *settings, "training.learning_rate=1e-3", "data.part=reward"
        )

    def online(self, name: str, recipe: str, start: Path, feedback: Any, *overrides: str) -> Path:
        training = self.training
        settings = [f"training.max_steps={training.steps}", f"training.learning_rate={training.learning_rate}"]
        settings += ["training.batch_size=32", "rollout.prompts=32", "rollout.epochs=1", "data.part=rl"]
        settings += [f"rollout.max_new_tokens={TOKENS}", f"loss.kl_coef={training.kl}", f"model.path={start}"]
        return self.train(name, recipe, *settings, *overrides, feedback=feedback)

    def policy(self) -> Path:
        """M_P^RL: imitation, then P3O on a reward model of the same pairs that the gap model sees."""
        start = self.imitated("sft")
        from alignment.feedback.trained import RewardModel

        reward = RewardModel(str(self.scorer("reward", self.imitated("pit_sft"))))
        return self.online("p3o", "p3o", start, reward, f"training.max_steps={self.training.steps_policy}")

    def improver(self, variant: str) -> Path:
        """M_PIT of a variant."""
        from alignment.feedback.gap import GapReward, RewardGap
        from alignment.feedback.trained import RewardModel

        start, overrides = self.imitated("pit_sft"), VARIANTS[variant]
        if overrides is None:
            return start
        if variant == "difference of rewards":
            feedback: Any = RewardGap(RewardModel(str(self.scorer("reward", start))))
        else:
            feedback = GapReward(str(self.scorer("pit_gap", start)))
        policy = [f"pit.policy={self.policy()}"]
        return self.online(variant.replace(" ", "_"), "pit", start, feedback, *policy, *overrides)


def answers_of(model: Path, prompts: Sequence[Any], temperature: float) -> list[str]:
    """One answer to each prompt."""
    from alignment.batching.units import prompt_ids
    from alignment.config import DataConfig, ModelConfig
    from alignment.models.loading import load_model, load_tokenizer
    from alignment.rollouts.sample import sample

    settings = ModelConfig(path=str(model))
    tokenizer = load_tokenizer(settings)
    ids = prompt_ids(prompts, tokenizer, DataConfig())
    found = sample(load_model(settings), tokenizer, ids, max_new_tokens=TOKENS, temperature=temperature, batch_size=128)
    return [answer.text for answer in found]


def qualities(
    improver: Path, prompts: Sequence[Any], references: Sequence[str], temperature: float
) -> tuple[list[float], list[float]]:
    """Of each reference, and of what the improver makes of it."""
    from alignment.data.improvement_prompts import load_improvement_template

    template = load_improvement_template("chat")
    asked = [template.to_improve(prompt, text) for prompt, text in zip(prompts, references, strict=True)]
    answers = answers_of(improver, asked, temperature)
    old = [quality(prompt, text) for prompt, text in zip(prompts, references, strict=True)]
    return old, [quality(prompt, text) for prompt, text in zip(prompts, answers, strict=True)]


def measured(
    improver: Path, prompts: Sequence[Any], references: Sequence[str], temperature: float
) -> dict[str, float | int]:
    """Shares of the references with an error that are raised and lowered; mean change of the perfect ones."""
    old, new = qualities(improver, prompts, references, temperature)
    changes = [(b - a, a == 1) for a, b in zip(old, new, strict=True)]
    improvable, perfect = ([change for change, is_perfect in changes if is_perfect == kind] for kind in (False, True))
    return {
        "before": statistics.fmean(old),
        "after": statistics.fmean(new),
        "improvable": len(improvable),
        "raised": sum(change > 0 for change in improvable) / len(improvable),
        "lowered": sum(change < 0 for change in improvable) / len(improvable),
        "perfect": len(perfect),
        "perfect_change": statistics.fmean(perfect or [0.0]),
    }


def run(variant: str, stages: Stages) -> dict[str, Any]:
    temperature = stages.training.temperature
    improver = stages.improver(variant)
    prompts = [example.prompt for example in stages.held_out]
    given = [response.text for example in stages.held_out for response in example.responses]
    twice = [prompt for prompt in prompts for _ in range(2)]
    own = answers_of(stages.policy(), prompts, 1.0)
    row: dict[str, Any] = {"variant": variant, "seed": stages.seed}
    row["data"] = measured(improver, twice, given, temperature)
    row["policy"] = measured(improver, prompts, own, temperature)
    return row
