"""A judge that goes in a circle, and who comes to terms with it: Nash-MD, self-play, best response, a reward model.

    python scripts/circle.py --out circle.jsonl --plot circle.png    # eleven policies, two seeds

The judge sees the style of an answer alone, which is how it begins: with an article ("The", "A"), with a person ("You",
"I"), or otherwise. Article beats other, other beats person, person beats article, but not equally often, so that scores
fitted to its verdicts have a winner. The reward model is trained on its
verdicts over the reference's own answers (`recipe=reward`) and its policy by RLOO; the others ask the judge itself.
Shares of the styles are of fresh answers to held-out prompts, and with them the judge's verdict on any two policies is
exact. The equilibrium is computed for each prompt, from the shares of the reference (`alignment/tabular`). A policy in
the file already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.data.views import Pair  # noqa: E402
from alignment.feedback.protocols import Context, Prompts  # noqa: E402
from alignment.tabular.games import Game  # noqa: E402
from alignment.tabular.solutions import equilibrium, fit_bradley_terry  # noqa: E402

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


def config(recipe: str, seed: int, arguments: argparse.Namespace, *overrides: str) -> Any:
    from alignment.launch.compose import Composer
    from alignment.launch.quiet import quiet_libraries

    quiet_libraries()
    shared = ["model=tiny", f"seed={seed}", f"training.learning_rate={arguments.learning_rate}", "training.bf16=false"]
    return Composer.create().config([f"recipe={recipe}", *shared, *overrides])


def answers_of(trainer: Any, prompts: Sequence[Any], each: int, seed: int) -> list[list[str]]:
    """`each` answers of the trainer's policy to every prompt, at temperature 1."""
    from alignment.batching.units import prompt_ids
    from alignment.rollouts.sampler import PolicySampler
    from alignment.rollouts.sampling import SamplingSettings

    sampler = PolicySampler(trainer.model, trainer.tokenizer, SamplingSettings(TOKENS, batch_size=256), None)
    ids = [tuple(prompt) for prompt in prompt_ids(prompts, trainer.tokenizer, trainer.config.data)]
    found = sampler.sample(ids, each, seed)
    return [[rollout.text for rollout in found[at * each : (at + 1) * each]] for at in range(len(ids))]


def online(recipe: str, seed: int, folder: str, arguments: argparse.Namespace, feedback: Any, *overrides: str) -> Any:
    """A trainer of the online recipe, with the judge or the reward model as its feedback."""
    from alignment.launch.run import METHODS

    settings = [
        f"training.max_steps={arguments.steps}",
        "training.batch_size=32",
        "rollout.prompts=32",
        "rollout.epochs=1",
        f"rollout.max_new_tokens={TOKENS}",
        "training.save_steps=null",
        "training.scheduler=linear",  # with steps of one size they would orbit
        *overrides,
    ]
    method = {"rloo": "policy_gradient"}.get(recipe, recipe)
    return METHODS[method](config=config(recipe, seed, arguments, *settings), folder=folder, feedback=feedback)


def reward_model(trainer: Any, seed: int, folder: str, arguments: argparse.Namespace) -> Any:
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
                sides = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
                pairs.append(Pair(f"{number}-{at}", prompts[number], *sides))
    settings = config("reward", seed, arguments, "training.max_steps=140", "training.batch_size=16", "peft=none")
    judge = RewardTrainer(config=settings, train=pairs, eval=pairs[:64], folder=folder)
    judge.train()
    judge.save_policy(Path(folder) / "model")
    return RewardModel(path=str(Path(folder) / "model"))


def run(policy: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one policy; its shares of the styles on held-out prompts (and, with RLHF, those of the reference)."""
    with tempfile.TemporaryDirectory() as folder:
        judge, rows, extra = Circle(), [], {}
        if policy == "RLHF":
            options = ["rollout.completions=2", f"loss.kl_coef={arguments.tau}"]
            noted = _Noted(judge)
            trainer = online("rloo", seed, folder, arguments, noted, *options)
            held_out = trainer.data.prompts[: arguments.prompts]
            found = shares(answers_of(trainer, held_out, arguments.answers, 7))
            rows.append({"policy": "reference", "seed": seed, "shares": found.tolist()})
            noted.of = reward_model(trainer, seed, f"{folder}/reward", arguments)
            texts = [text for each in answers_of(trainer, held_out, 2, 9) for text in each]
            scores = noted.of.score([prompt for prompt in held_out for _ in range(2)], texts)
            extra["rewards"] = [
                float(np.mean([s for s, text in zip(scores, texts, strict=True) if style(text) == number]))
                for number in range(3)
            ]
        else:
            trainer = online("nash_md", seed, folder, arguments, judge, f"loss.tau={arguments.tau}", *NASH[policy])
            held_out = trainer.data.prompts[: arguments.prompts]
        trainer.train()
        found = shares(answers_of(trainer, held_out, arguments.answers, 8))
        rows.append({"policy": policy, "seed": seed, "shares": found.tolist(), "path": judge.seen, **extra})
    return rows


class _Noted:
    """A reward, with the styles of all that it scores noted by the judge that it was made from."""

    label = "reward_model"

    def __init__(self, judge: Circle) -> None:
        self.judge, self.of = judge, None

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        self.judge.seen.append(shares([completions])[0].tolist())
        return self.of.score(prompts, completions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a policy and seed; added to")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--tau", type=float, default=0.1, help="weight of the KL, of all methods")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts")
    parser.add_argument("--answers", type=int, default=32, help="answers to each of them")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.is_file() else []
    known = {(row["policy"], row["seed"]) for row in rows}
    for seed in map(int, arguments.seeds.split(",")):
        for policy in arguments.policies.split(","):
            if not arguments.table and (policy, seed) not in known:
                for row in run(policy, seed, arguments):
                    rows.append(row)
                    with open(arguments.out, "a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(row["policy"], seed, np.mean(row["shares"], 0).round(3), row.get("rewards", ""), flush=True)
    print(tables(rows, arguments.tau))
    if arguments.plot:
        plot(rows, arguments.tau, arguments.plot)


def with_equilibrium(rows: Sequence[dict[str, Any]], tau: float) -> dict[str, np.ndarray]:
    """policy -> (seeds, prompts, 3) shares; last the regularised equilibrium of each prompt's game."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row["policy"]].append(row["shares"])
    policies = {name: np.array(value) for name, value in found.items()}
    mu = policies["reference"].mean(0) + 1e-3  # no style is impossible
    log_mu = np.log(mu / mu.sum(-1, keepdims=True))
    game = Game(np.broadcast_to(CIRCLE, (len(mu), 3, 3)), log_mu, np.full(len(mu), tau))
    return policies | {"equilibrium": np.exp(equilibrium(game))[None]}


def tables(rows: Sequence[dict[str, Any]], tau: float) -> str:
    """The styles of each policy and how often each style beats it; and how often each policy beats each other one."""
    if not any(row["policy"] == "reference" for row in rows):
        return "No table yet: --policies RLHF comes with the reference, which it needs."
    policies = with_equilibrium(rows, tau)
    lines = ["| policy | " + " | ".join(STYLES) + " | distance | " + " | ".join(f"{s} beats it" for s in STYLES) + " |"]
    lines.append("|---|" + "--:|" * 7)
    target = policies["equilibrium"].mean((0, 1))
    for name, found in policies.items():
        mean = found.mean((0, 1))
        each = np.abs(found.mean(1) - target).sum(-1) / 2  # total variation, a seed
        beats = (CIRCLE @ mean).tolist()
        cells = [*(f"{100 * share:.0f} %" for share in mean), f"{each.mean():.2f}", *(f"{b:.2f}" for b in beats)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    names = list(policies)
    lines += ["", "| | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for row in names:
        cells = [f"{win(policies[row], policies[column]):.3f}" for column in names]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    mu = policies["reference"].mean((0, 1))
    fits = {"Bradley-Terry fit to pairs of the reference": fit_bradley_terry(CIRCLE, np.outer(mu, mu))}
    rewards = [row["rewards"] for row in rows if "rewards" in row]
    if rewards:
        fits["Reward model, mean by style"] = np.mean(rewards, 0)
    for name, fitted in fits.items():
        lines.append(f"\n{name}: " + ", ".join(f"{s} {r:+.2f}" for s, r in zip(STYLES, fitted, strict=True)))
    return "\n".join(lines)


def win(first: np.ndarray, second: np.ndarray) -> float:
    """P(first beats second), mean over prompts and over all pairs of seeds."""
    return float(np.einsum("apk,kl,bpl->abp", first, CIRCLE, second).mean())


def plot(rows: Sequence[dict[str, Any]], tau: float, file: Path) -> None:
    """Styles over training of four policies, and the equilibrium's as dashed lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = with_equilibrium(rows, tau)["equilibrium"].mean((0, 1))
    shown = [name for name in ("RLHF", "SP", "MD1", "BR") if any(row["policy"] == name for row in rows)]
    figure = Figure(figsize=(3 * len(shown), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        paths = [np.array(row["path"]) for row in rows if row["policy"] == name]
        for number, label in enumerate(STYLES):
            for path in paths:
                smooth = np.convolve(path[:, number], np.ones(10) / 10, mode="valid")
                axes.plot(
                    np.arange(len(smooth)) + 10, smooth, color=f"C{number}", label=label if path is paths[0] else None
                )
            axes.axhline(target[number], color=f"C{number}", ls="--", lw=1)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("share of the answers")
    figure.axes[0].legend(frameon=False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
