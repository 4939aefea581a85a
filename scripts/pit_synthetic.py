"""PIT on answers whose quality is known: the whole of it against its ablations.

    python scripts/pit_synthetic.py --out pit.jsonl    # every variant, three seeds

A prompt asks for the opposites of three words, and an answer pairs each word with one: "hot cold, up big, old new".
Its quality is the share of the words that stand beside their opposite. Of a pair the rejected answer has two or three
errors and the chosen one fewer, but mostly some: imitation alone stops short. Every stage takes its own third of the
prompts: a policy and an improver by imitation, a reward model and a gap model from the improver's weights, the policy
trained by P3O on that reward, and then the improver by PIT, once for each variant, with equally many steps. Measured on
held-out prompts: of the references with an error, how many the improver raises or lowers, and what it does to those
without; for the answers of the data, and for those of the trained policy. A variant in the file already is not trained
again; the stages before it are kept in --folder.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from alignment.data.example import Example, Preference, Response  # noqa: E402 - found through the line above

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


class Stages:
    """The stages of one seed, each trained when it is first asked for and kept in a folder."""

    def __init__(self, folder: Path, seed: int, arguments: argparse.Namespace) -> None:
        self.folder, self.seed, self.arguments = folder, seed, arguments
        self.held_out = examples(arguments.held_out, 1)
        self.data = examples(arguments.pairs, 2, self.held_out)

    def train(self, name: str, recipe: str, *overrides: str, feedback: Any = None) -> Path:
        """The run folder of a stage."""
        from alignment.launch.compose import Composer
        from alignment.launch.quiet import quiet_libraries
        from alignment.launch.training_run import METHODS

        quiet_libraries()
        run = self.folder / name
        if not (run / "model").is_dir():
            shared = ["model=tiny", "peft=none", "training.bf16=false", f"seed={self.seed}", "evaluation.score=null"]
            config = Composer.create().config([f"recipe={recipe}", *shared, *overrides])
            given = {} if feedback is None else {"feedback": feedback}
            trainer = METHODS[config.method](config=config, train=self.data, eval=self.held_out, folder=run, **given)
            trainer.train()
            trainer.save_policy(run / "model")
        return run

    def imitated(self, recipe: str) -> Path:
        settings = [f"training.max_steps={self.arguments.steps_sft}", "training.batch_size=32"]
        return self.train(recipe, recipe, *settings, "training.learning_rate=2e-3", "data.part=sft")

    def scorer(self, recipe: str, start: Path) -> Path:
        settings = [f"training.max_steps={self.arguments.steps_scorer}", "training.batch_size=16"]
        return self.train(
            recipe, recipe, f"model.path={start}", *settings, "training.learning_rate=1e-3", "data.part=reward"
        )

    def online(self, name: str, recipe: str, start: Path, feedback: Any, *overrides: str) -> Path:
        arguments = self.arguments
        settings = [f"training.max_steps={arguments.steps}", f"training.learning_rate={arguments.learning_rate}"]
        settings += ["training.batch_size=32", "rollout.prompts=32", "rollout.epochs=1", "data.part=rl"]
        settings += [f"rollout.max_new_tokens={TOKENS}", f"loss.kl_coef={arguments.kl}", f"model.path={start}"]
        return self.train(name, recipe, *settings, *overrides, feedback=feedback)

    def policy(self) -> Path:
        """M_P^RL: imitation, then P3O on a reward model of the same pairs that the gap model sees."""
        start = self.imitated("sft")
        from alignment.feedback.trained import RewardModel

        return self.online("p3o", "p3o", start, RewardModel(str(self.scorer("reward", self.imitated("pit_sft")))))

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


def measured(
    improver: Path, prompts: Sequence[Any], references: Sequence[str], temperature: float
) -> dict[str, float | int]:
    """Shares of the references with an error that are raised and lowered; mean change of the perfect ones."""
    from alignment.data.improvement_prompts import load_improvement_template

    template = load_improvement_template("chat")
    asked = [template.to_improve(prompt, text) for prompt, text in zip(prompts, references, strict=True)]
    answers = answers_of(improver, asked, temperature)
    old = [quality(prompt, text) for prompt, text in zip(prompts, references, strict=True)]
    new = [quality(prompt, text) for prompt, text in zip(prompts, answers, strict=True)]
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
    temperature = stages.arguments.temperature
    improver = stages.improver(variant)
    prompts = [example.prompt for example in stages.held_out]
    given = [response.text for example in stages.held_out for response in example.responses]
    twice = [prompt for prompt in prompts for _ in range(2)]
    own = answers_of(stages.policy(), prompts, 1.0)
    row: dict[str, Any] = {"variant": variant, "seed": stages.seed}
    row["data"] = measured(improver, twice, given, temperature)
    row["policy"] = measured(improver, prompts, own, temperature)
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: means over seeds, and the lowest and highest seed of what is raised."""
    heads = ["references", "variant", "seeds", "quality before", "after", "raised", "lowest, highest", "lowered"]
    lines = ["| " + " | ".join([*heads, "change of perfect ones"]) + " |", "|---|---|" + "--:|" * 7]
    for kind, name in (("data", "of the data"), ("policy", "of the policy")):
        for variant in VARIANTS:
            found = [row[kind] for row in rows if row["variant"] == variant]
            if found:
                mean = {key: statistics.fmean(row[key] for row in found) for key in found[0]}
                each = sorted(row["raised"] for row in found)
                cells = [name, variant, str(len(found)), f"{mean['before']:.3f}", f"{mean['after']:.3f}"]
                cells += [f"{100 * mean['raised']:.0f} %", f"{100 * each[0]:.0f}, {100 * each[-1]:.0f} %"]
                cells += [f"{100 * mean['lowered']:.0f} %", f"{mean['perfect_change']:+.3f}"]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a variant and seed; added to")
    parser.add_argument("--folder", type=Path, help="where the stages are kept; otherwise they are thrown away")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pairs", type=int, default=1200, help="training pairs of all three parts")
    parser.add_argument("--held-out", type=int, default=100, help="held-out pairs")
    parser.add_argument("--steps-sft", type=int, default=80)
    parser.add_argument("--steps-scorer", type=int, default=100)
    parser.add_argument("--steps", type=int, default=60, help="of P3O, and of PIT")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of P3O, and of PIT")
    parser.add_argument("--kl", type=float, default=0.1, help="weight of the KL")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the improver when it is measured")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.is_file() else []
    known = {(row["variant"], row["seed"]) for row in rows}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in map(int, arguments.seeds.split(",")):
            stages = Stages((arguments.folder or Path(scratch)) / str(seed), seed, arguments)
            for variant in arguments.variants.split(","):
                if (variant, seed) not in known:
                    rows.append(run(variant, stages))
                    with open(arguments.out, "a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
