"""A judge that goes in a circle, and who comes to terms with it: Nash-MD, self-play, best response, a reward model.

The judge sees the style of an answer alone, which is how it begins: with an article ("The", "A"), with a person ("You",
"I"), or otherwise. Article beats other, other beats person, person beats article, but not equally often, so that scores
fitted to its verdicts have a winner. Shares of the styles are of fresh answers to held-out prompts, and with them the
judge's verdict on any two policies is exact. The equilibrium is computed for each prompt, from the shares of the
reference (`alignment/tabular`).
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.views import Pair
from alignment.feedback.protocols import Context, Prompts
from alignment.reproduce.lab import composer
from alignment.tabular.games import Game
from alignment.tabular.solutions import equilibrium

STYLES = ("article", "person", "other")
BEGIN = (r"(the|a|an)\b", r"(i|you|your|we|it|he|she|they|one)\b")  # of the first two styles, in either case
# P(row beats column). Against the reference the first style wins most often, and it is the second that beats it.
CIRCLE = np.array([[0.5, 0.2, 0.95], [0.8, 0.5, 0.45], [0.05, 0.55, 0.5]])

# name -> overrides of recipe=nash_md; MD1 to MD6 as in the paper's table
NASH = {
    "SP": ["rollout.mixture=0"],
    **{f"MD{n}": [f"rollout.mixture={n / 8}"] for n in range(1, 7)},
    "BR": ["rollout.mixture=1"],
    "EMA": ["rollout.opponent_decay=0.98"],
}
POLICIES = ("RLHF", *NASH)
TOKENS = 4


@dataclass(frozen=True)
class Training:
    """How every policy is trained and measured."""

    steps: int = 150
    tau: float = 0.1  # weight of the KL, of all methods
    learning_rate: float = 1e-3
    prompts: int = 64  # held-out ones
    answers: int = 32  # to each of them
    scorer_steps: int = 140  # of the reward model
    batch_size: int = 32


def style(text: str) -> int:
    """The place of an answer's style in STYLES."""
    return next((at for at, begin in enumerate(BEGIN) if re.match(begin, text, re.IGNORECASE)), 2)


class Circle:
    """P(first beats second) by their styles; notes the styles of what comes first, which are the policy's."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []  # the share of each style, a row a call

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        self.seen.append(shares([first])[0].tolist())
        return [float(CIRCLE[style(a), style(b)]) for a, b in zip(first, second, strict=True)]


def shares(answers: Sequence[Sequence[str]]) -> np.ndarray:
    """(prompts, 3): the share of each style among the answers to each prompt."""
    return np.array([np.bincount([style(text) for text in texts], minlength=3) / len(texts) for texts in answers])


def config(recipe: str, seed: int, training: Training, *overrides: str) -> Any:
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    shared = ["model=tiny", f"seed={seed}", f"training.learning_rate={training.learning_rate}", "training.bf16=false"]
    return composer().config([f"recipe={recipe}", *shared, *overrides])


def answers_of(trainer: Any, prompts: Sequence[Any], each: int, seed: int) -> list[list[str]]:
    """`each` answers of the trainer's policy to every prompt, at temperature 1."""
    from alignment.batching.units import prompt_ids
    from alignment.rollouts.sampler import PolicySampler
    from alignment.rollouts.sampling import SamplingSettings

    sampler = PolicySampler(trainer.model, trainer.tokenizer, SamplingSettings(TOKENS, batch_size=256), None)
    ids = [tuple(prompt) for prompt in prompt_ids(prompts, trainer.tokenizer, trainer.config.data)]
    found = sampler.sample(ids, each, seed)
    return [[rollout.text for rollout in found[at * each : (at + 1) * each]] for at in range(len(ids))]


def online(recipe: str, seed: int, folder: str, training: Training, feedback: Any, *overrides: str) -> Any:
    """A trainer of the online recipe, with the judge or the reward model as its feedback."""
    from alignment.launch.training_run import METHODS

    settings = [
        f"training.max_steps={training.steps}",
        f"training.batch_size={training.batch_size}",
        f"rollout.prompts={training.batch_size}",
        "rollout.epochs=1",
        f"rollout.max_new_tokens={TOKENS}",
        "training.save_steps=null",
        "training.scheduler=linear",  # with steps of one size they would orbit
        *overrides,
    ]
    method = {"rloo": "policy_gradient"}.get(recipe, recipe)
    return METHODS[method](config=config(recipe, seed, training, *settings), folder=folder, feedback=feedback)


def reward_model(trainer: Any, seed: int, folder: str, training: Training) -> Any:
    """A reward model of the judge's verdicts on pairs of the reference's own answers."""
    from alignment.feedback.trained import RewardModel
    from alignment.trainers.reward import RewardTrainer

    random_numbers, pairs = random.Random(seed), []
    prompts = [record.prompt for record in trainer.data.records.values()]
    for number, texts in enumerate(answers_of(trainer, prompts, 16, seed + 1)):
        for at in range(0, 16, 2):
            a, b = texts[at : at + 2]
            won = random_numbers.random() < CIRCLE[style(a), style(b)]
            chosen, rejected = (a, b) if won else (b, a)
            if a != b:
                better, worse = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
                pairs.append(Pair(f"{number}-{at}", prompts[number], better, worse))
    settings = config(
        "reward", seed, training, f"training.max_steps={training.scorer_steps}", "training.batch_size=16", "peft=none"
    )
    judge = RewardTrainer(config=settings, train=pairs, eval=pairs[:64], folder=folder)
    judge.train()
    judge.save_policy(Path(folder) / "model")
    return RewardModel(path=str(Path(folder) / "model"))


def run(policy: str, seed: int, training: Training) -> list[dict[str, Any]]:
    """Train one policy; its shares of the styles on held-out prompts (and, with RLHF, those of the reference)."""
    with tempfile.TemporaryDirectory() as folder:
        judge, rows, extra = Circle(), [], {}
        if policy == "RLHF":
            options = ["rollout.completions=2", f"loss.kl_coef={training.tau}"]
            noted = _Noted(judge)
            trainer = online("rloo", seed, folder, training, noted, *options)
            held_out = trainer.data.prompts[: training.prompts]
            found = shares(answers_of(trainer, held_out, training.answers, 7))
            rows.append({"policy": "reference", "seed": seed, "shares": found.tolist()})
            noted.of = reward_model(trainer, seed, f"{folder}/reward", training)
            texts = [text for each in answers_of(trainer, held_out, 2, 9) for text in each]
            scores = noted.of.score([prompt for prompt in held_out for _ in range(2)], texts)
            extra["rewards"] = [
                float(np.mean([s for s, text in zip(scores, texts, strict=True) if style(text) == number]))
                for number in range(3)
            ]
        else:
            trainer = online("nash_md", seed, folder, training, judge, f"loss.tau={training.tau}", *NASH[policy])
            held_out = trainer.data.prompts[: training.prompts]
        trainer.train()
        found = shares(answers_of(trainer, held_out, training.answers, 8))
        rows.append({"policy": policy, "seed": seed, "shares": found.tolist(), "path": judge.seen, **extra})
    return rows


class _Noted:
    """A reward, with the styles of all that it scores noted by the judge that it was made from."""

    label = "reward_model"

    def __init__(self, judge: Circle) -> None:
        self.judge = judge
        self.of: Any = None

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        self.judge.seen.append(shares([completions])[0].tolist())
        return self.of.score(prompts, completions)


def with_equilibrium(rows: Sequence[dict[str, Any]], tau: float) -> dict[str, np.ndarray]:
    """policy -> (seeds, prompts, 3) shares; last the regularised equilibrium of each prompt's game.

    A seed has held-out prompts of its own, so its games do, too. Seeds that a policy lacks are left out.
    """
    found: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for row in rows:
        found[row["policy"]][row["seed"]] = row["shares"]
    seeds = sorted(set.intersection(*(set(each) for each in found.values())))
    policies = {name: np.array([each[seed] for seed in seeds]) for name, each in found.items()}
    mu = policies["reference"].reshape(-1, 3) + 1e-3  # no style is impossible
    log_mu = np.log(mu / mu.sum(-1, keepdims=True))
    game = Game(np.broadcast_to(CIRCLE, (len(mu), 3, 3)), log_mu, np.full(len(mu), tau))
    return policies | {"equilibrium": np.exp(equilibrium(game)).reshape(policies["reference"].shape)}


def win(first: np.ndarray, second: np.ndarray) -> float:
    """P(first beats second) to the same prompt, mean over prompts and seeds."""
    return float(np.einsum("spk,kl,spl->sp", first, CIRCLE, second).mean())
