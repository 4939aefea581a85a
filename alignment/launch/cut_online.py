"""CUT online (Xu et al., 2312.14591): iterations of sampling answers, a critic's review of them, and training on it.

An iteration takes new prompts, samples answers from the model as it is, has the feedback review them, and trains the
model further with CUT. The paper takes 1,000 instructions an iteration with one answer each, GPT-4 as the critic, and a
satisfactory answer for every four that are not (judged.downsample=0.25).

"Further" means: with LoRA the same adapter is trained on, so that the base stays as it was (an adapter merged into
half-precision weights is partly rounded away) and one adapter comes out; with peft=none all weights are, kept in
float32. The optimiser begins anew. Answers, KL and fluency are compared with those of the model before the first
iteration.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment.batching.steps import StepSampler
from alignment.config import ModelConfig, RunConfig
from alignment.data.example import Example
from alignment.data.judged_view import judged
from alignment.data.judgment_prompts import load_judgment_template
from alignment.data.readers import load_examples
from alignment.data.views import Prompt
from alignment.errors import UserError
from alignment.evaluation.summary import read_samples
from alignment.feedback.adapters import close
from alignment.feedback.build import build_feedback
from alignment.feedback.label import Labelling, label_file
from alignment.feedback.protocols import Critic
from alignment.launch.sampled import sampled_answers, sampling
from alignment.launch.stages import Stages
from alignment.rollouts.sample_file import Sampling
from alignment.trainers.cut import as_asked
from alignment.trainers.inputs import read_prompts
from alignment.trainers.loss_settings import build_judged_loss

HELD_OUT = "held-out"  # answers of the first model to held-out prompts, reviewed: log-probs of these are measured

COUNTED = ("prompts", "answers", "cut", "empty", "too_long", "satisfactory", "unsatisfactory", "no_verdict", "unusable")
REVIEWED_AT_ONCE = 16  # prompts: so many are reviewed again after a kill


def cut_online(stages: Stages) -> None:
    """All iterations, then the table of the model before the first beside the one after the last."""
    config = stages.config
    check(config)
    prompts, held_out, counts = read_prompts(config)
    if config.evaluation.prompts and held_out:
        reviewed(stages, HELD_OUT, held_out[: config.evaluation.prompts], 0)
    order = StepSampler(len(prompts), min(config.rollout.prompts, len(prompts)), 0, config.seed)
    rounds: list[dict[str, Any]] = []
    for number in range(1, config.rollout.iterations + 1):
        if begins_again(order, number):
            stages.say(f"iteration {number}: all {len(prompts)} prompts were taken, it begins again with them")
        chosen = [prompts[place] for place in dict.fromkeys(order.step(number - 1))]
        found = reviewed(stages, f"iteration-{number}", chosen, number)
        if not found["unsatisfactory"]:
            stages.say(f"iteration {number}: the critic is satisfied with all answers, nothing is left to learn")
            break
        summary = stages.train(trained(number), training(stages, number), compared_with=trained(1))
        rounds.append({"iteration": number, **found, **outcome(summary)})
        stages.say(told(rounds[-1]))
    if not rounds:
        raise UserError(
            f"the critic is satisfied with all {found['satisfactory']} answers of iteration 1: there is nothing to "
            "learn\nMend: a stricter critic (feedback.*), or other prompts (data.path)"
        )
    runs = [trained(row["iteration"]) for row in rounds]
    whole = {key: value for key, value in summary.items() if key != "tokens_per_second"}  # that is the last one's
    numbers = {f"iteration {row['iteration']}": {key: row[key] for key in COUNTED} for row in rounds}
    whole |= {"data": {"prompts": counts, **numbers}, "iterations": rounds}
    stages.finish(whole, read_samples(stages.folder / runs[-1]), runs)


def trained(number: int) -> str:
    """The stage that trains in iteration `number`."""
    return f"iteration-{number}/train"


def check(config: RunConfig) -> None:
    """Refuse what cannot work, before anything is sampled."""
    if not config.feedback:
        raise UserError("no critic: give feedback=NAME, such as plain_critic, critique_local or critique_served")
    critic = build_feedback(config.feedback)
    close(critic)
    if not isinstance(critic, Critic):
        raise UserError(
            f"feedback={config.feedback['name']} writes no judgments: recipe=cut_online needs a critic, such as "
            "plain_critic, critique_local or critique_served"
        )
    if config.peft.path:
        raise UserError(
            f"peft.path: the iterations go on with an adapter of their own; give model.path={config.peft.path}"
        )
    drawn(config, 0)
    build_judged_loss(config.loss)
    load_judgment_template(config.judged.template)


def begins_again(order: StepSampler, number: int) -> bool:
    """Whether iteration `number` is the first to take a prompt that was taken before."""
    last = (number * order.batch_size - 1) // order.examples
    return last > max(0, (number - 1) * order.batch_size - 1) // order.examples


def reviewed(stages: Stages, name: str, prompts: Sequence[Prompt], number: int) -> dict[str, int]:
    """Answers of the model that iteration `number` begins with, and their reviews, in the folder `name`; counts."""
    config = stages.config
    template, (_, form) = load_judgment_template(config.judged.template), build_judged_loss(config.loss)

    def sample(out: Path) -> dict[str, int]:
        given = [Example(prompt.messages, meta=prompt.meta) for prompt in prompts]
        settings = drawn(config, number)
        made = sampled_answers(
            stages, out, given, sampled_from(stages, number), settings, lambda prompt: as_asked(template, form, prompt)
        )
        stages.say(f"{name}: {made['answers']} answers to {made['prompts']} prompts, {made['cut']} of them cut")
        return {key: made[key] for key in ("prompts", "answers", "cut", "empty")}

    def review(out: Path) -> dict[str, int]:
        answers = str(out.with_name("answers.jsonl"))
        labelling = Labelling(way="review", batch_size=REVIEWED_AT_ONCE)
        label_file(answers, out, config.feedback, labelling, processes=stages.processes)
        found = stages.on_first(lambda: count_judgments(out))
        counts = [f"{value} {key.replace('_', ' ')}" for key, value in found.items() if value]
        stages.say(f"{name}: {', '.join(counts)}")
        return found

    made = stages.step(f"{name}/answers.jsonl", sample)
    found = stages.step(f"{name}/judged.jsonl", review)
    if not found["satisfactory"] + found["unsatisfactory"]:
        raise UserError(f"{name}: of {made['answers']} answers the critic gave no judgment that can be trained on")
    return {**made, **found, "too_long": len(prompts) - made["prompts"]}


def count_judgments(file: Path) -> dict[str, int]:
    """What is in a file of reviewed answers: judgments by their verdict, none, and those that teach nothing."""
    records, left_out = judged(load_examples(str(file)).examples)
    good, none = sum(record.satisfactory for record in records), ("no judgment", "no verdict")
    return {
        "satisfactory": good,
        "unsatisfactory": len(records) - good,
        "no_verdict": sum(left_out.get(reason, 0) for reason in none),
        "unusable": sum(count for reason, count in left_out.items() if reason not in (*none, "cut judgment")),
    }


def drawn(config: RunConfig, number: int) -> Sampling:
    """How the answers of an iteration are drawn, with random numbers of its own."""
    return sampling(config, config.seed * 1_000_003 + number, config.rollout.completions)


def sampled_from(stages: Stages, number: int) -> ModelConfig:
    """The model that iteration `number` begins with."""
    if number < 2:
        return stages.config.model
    place = stages.folder / trained(number - 1) / "model"
    return replace(stages.config.model, name=f"iteration-{number - 1}", path=str(place))


def training(stages: Stages, number: int) -> RunConfig:
    """The run of CUT in iteration `number`: on its judgments alone, from the model that gave the answers."""
    own = copy.deepcopy(stages.config)
    own.method, own.recipe = "cut", f"{own.recipe}, iteration {number}"
    held_out = stages.folder / HELD_OUT / "judged.jsonl"
    own.data.path = str(stages.folder / f"iteration-{number}" / "judged.jsonl")
    own.data.eval_path = str(held_out) if own.evaluation.prompts and held_out.is_file() else None
    own.data.format, own.data.limit, own.data.part, own.data.eval_fraction = "auto", None, None, 0.0
    if own.peft.method == "none":
        own.reference.path = own.reference.path or own.model.path
        own.model.dtype = "float32"
        own.model.path = sampled_from(stages, number).path
    else:
        own.reference.kind = own.reference.kind if own.reference.path else "adapter_off"
        own.peft.path = sampled_from(stages, number).path if number > 1 else None
    return own


def outcome(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the table of all iterations shows of one."""
    kept = {key: summary[key] for key in ("steps", "satisfied", "kl") if key in summary}
    return {"trained_on": summary["data"]["train"]["answers"], **kept}


def told(row: Mapping[str, Any]) -> str:
    """One line on an iteration."""
    line, found = f"iteration {row['iteration']}: trained on {row['trained_on']} answers", row.get("satisfied") or {}
    if "after" not in found:
        return line
    before, after = (f"{100 * found[side]:.0f} %" for side in ("before", "after"))
    return f"{line}; of fresh answers to held-out prompts {after} satisfy {found['name']}, {before} before iteration 1"
