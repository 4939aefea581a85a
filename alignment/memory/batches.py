"""Which micro-batch of a run is the largest, and which rows are sampled at once: from its data, or from its limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment.batching.groups import Group, Unit
from alignment.batching.microbatch import cut_by_tokens
from alignment.batching.rows import Tally
from alignment.batching.steps import StepSampler, balanced, steps_of
from alignment.config import DataConfig, RunConfig
from alignment.data import builtin
from alignment.data.templates import check_tokenizer
from alignment.launch.training_run import METHODS
from alignment.models.loading import load_tokenizer
from alignment.trainers.base import ENOUGH_TOKENS
from alignment.trainers.inputs import View, load_view
from alignment.trainers.online import OnlineTrainer
from alignment.trainers.pit import UPDATES
from alignment.trainers.policy import PolicyTrainer
from alignment.trainers.reward import RewardTrainer

CHEAP = 50 * 2**20  # bytes of local data that are read to estimate; more, or a hub id, and the limits stand in
STEPS = 2000  # so many steps are looked through


@dataclass(frozen=True)
class Shape:
    """What a unit of a method is where its data is not read: groups of so many completions, of so many answers each."""

    groups: int = 1
    completions: int = 2
    answers: int = 1  # one behind the other


SHAPES = {
    "kto": Shape(completions=1),
    "sft": Shape(completions=1),
    "pit_sft": Shape(completions=1),
    "cut": Shape(groups=2, completions=1),
    "preference_model": Shape(answers=2),
    "pit_gap": Shape(completions=4, answers=2),
}
ONE_TRAINED = ("nash_md", "expert_iteration")  # of the completions of a prompt
TWO_TRAINED = ("p3o", "online_dpo")


def trainer_class(config: RunConfig) -> Any:
    """The class that trains `config.method`."""
    found = METHODS[config.method]
    return UPDATES[str(config.loss.get("name", "p3o"))] if config.method == "pit" else found


def is_online(config: RunConfig) -> bool:
    return issubclass(trainer_class(config), OnlineTrainer)


def is_scorer(config: RunConfig) -> bool:
    """Whether the model that is trained gives scores, not log-probs."""
    return issubclass(trainer_class(config), RewardTrainer)


def is_cheap(data: DataConfig) -> bool:
    """Whether the data can be read now: built in, or local and small. Without a path there is none yet."""
    paths = list(data.path) if hasattr(data.path, "keys") else [data.path]
    for path in [*paths, *([data.eval_path] if data.eval_path else [])]:
        if path in builtin.names():
            continue
        place = Path(str(path)).expanduser()
        files = [place] if place.is_file() else list(place.rglob("*")) if place.is_dir() else []
        if not files or sum(file.stat().st_size for file in files if file.is_file()) > CHEAP:
            return False
    return True


def without_model(kind: type[PolicyTrainer], config: RunConfig) -> Any:
    """A trainer whose loss is chosen, and which has no model: enough to read data, and to say what the loss needs."""
    trainer: Any = kind.__new__(kind)
    trainer.own_loss = None  # of a DPOTrainer
    trainer.choose_loss(config)
    return trainer


def units_of(config: RunConfig) -> list[Unit]:
    """The run's training units, read as the run reads them. Raises UserError as the run would."""
    tokenizer = load_tokenizer(config.model)
    check_tokenizer(tokenizer, config.data.template)
    kind = trainer_class(config)
    if issubclass(kind, PolicyTrainer):
        return without_model(kind, config).load(None, None, tokenizer, config).train
    from alignment.data.views import Pair, pairs

    view = View(Pair, pairs, kind.to_units, "pair")
    return load_view(None, None, tokenizer, config, view).train


def stand_ins(config: RunConfig) -> list[Unit]:
    """Units as long as the limits of the data allow: one step of them."""
    shape, data = SHAPES.get(config.method, Shape()), config.data
    answer = (0,) * (shape.answers * data.max_completion_length)
    groups = (Group((0,) * data.max_prompt_length, (answer,) * shape.completions),) * shape.groups
    return [Unit(str(number), groups) for number in range(config.training.batch_size)]


def sampled(config: RunConfig, units: Sequence[Unit]) -> list[Unit]:
    """The units of an online method with what is trained of their samples, each as long as it may be."""
    trained = config.rollout.completions
    if config.method in (*ONE_TRAINED, *TWO_TRAINED):
        trained = 1 if config.method in ONE_TRAINED else 2
    answers = ((0,) * config.rollout.max_new_tokens,) * trained
    return [replace(unit, groups=(Group(unit.groups[0].prompt, answers),)) for unit in units]


def largest(config: RunConfig, units: Sequence[Unit], layout: str, processes: int, on_cpu: bool) -> tuple[Unit, ...]:
    """The units of the micro-batch with the most tokens, padding included; of equal ones that of the longest rows."""
    training = config.training
    enough = ENOUGH_TOKENS[on_cpu] if layout == "shared" else math.inf
    lengths = [unit.useful_tokens for unit in units]
    steps = training.max_steps or steps_of(len(units), training.batch_size, training.epochs)
    stream = StepSampler(len(units), training.batch_size, min(steps, STEPS), config.seed)
    found: tuple[int, int, tuple[Unit, ...]] = (0, 0, ())
    for indices in stream:
        for share in balanced([lengths[index] for index in indices], processes):
            mine = [units[indices[place]] for place in share]
            for piece in cut_by_tokens(mine, training.token_budget, layout, enough):
                tally = Tally(layout)
                for unit in piece:
                    tally.add(unit.groups)
                width = max(unit.useful_tokens for unit in piece)
                found = max(found, (tally.encoded, width, tuple(piece)), key=lambda each: each[:2])
    return found[2]


@dataclass(frozen=True)
class Sampling:
    """What is decoded at once: `rows` completions of prompts of at most `prompt` tokens, each of which has `copies`."""

    rows: int
    prompt: int
    copies: int
    new_tokens: int


def samplings(config: RunConfig, units: Sequence[Unit], processes: int) -> list[Sampling]:
    """The batches that are sampled: of an online method's phases, and of the answers before and after."""
    found = []
    prompts = [len(unit.groups[0].prompt) for unit in units]
    share: Callable[[int], int] = lambda count: math.ceil(count / processes)  # noqa: E731
    if is_online(config):
        rollout = config.rollout
        copies = 1 if config.method == "nash_md" else rollout.completions
        rows = min(rollout.batch_size, share(rollout.prompts) * copies)
        # Nash-MD's opponent has the policy's rows and the reference's side by side.
        twice = 2 if config.method == "nash_md" and rollout.opponent_decay is None and 0 < rollout.mixture < 1 else 1
        found.append(Sampling(rows * twice, max(prompts), min(copies, rows), rollout.max_new_tokens))
    evaluation = config.evaluation
    if evaluation.prompts and not is_scorer(config):
        copies = config.rollout.completions if config.method == "best_of_n" else 1
        rows = min(evaluation.batch_size, share(evaluation.prompts) * copies)
        found.append(Sampling(rows, max(prompts), copies, evaluation.max_new_tokens))
    return found
