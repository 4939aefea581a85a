"""What a trainer is given -> what it trains: a policy with its tokenizer, and units to train on and to hold out."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.batching.groups import Unit
from alignment.batching.improvements import Showing, improvement_units, reference_units
from alignment.batching.judged import Form, judged_units
from alignment.batching.units import TokenCounts, answer_units, demonstration_units, pair_units, prompt_units
from alignment.config import PARTS, DataConfig, RunConfig
from alignment.data.example import Message
from alignment.data.judgment_prompts import JudgmentTemplate
from alignment.data.readers import load_examples
from alignment.data.templates import check_tokenizer
from alignment.data.views import (
    Demonstration,
    Improvement,
    Judged,
    Pair,
    Prompt,
    ReferenceAnswer,
    Unpaired,
    demonstrations,
    downsample,
    improvements,
    judged,
    pairs,
    prompts,
    reference_answers,
    unpaired,
)
from alignment.errors import UserError
from alignment.models.adapters import add_adapter, is_adapted
from alignment.models.loading import load_model, load_tokenizer

Source = Any  # a path or mixture of paths, Examples, or a list of pairs or labelled answers


def load_policy(
    model: str | PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None, config: RunConfig
) -> tuple[Any, PreTrainedTokenizerBase]:
    """(policy with its adapter, tokenizer). `model` may be loaded already, a name or path, or None for config.model."""
    if isinstance(model, str):
        config.model.path, config.model.name = model, model
    if isinstance(model, str) or model is None:
        tokenizer = tokenizer or load_tokenizer(config.model)
        check_tokenizer(tokenizer, config.data.template)  # before the weights are read
        model = load_model(config.model)
    if tokenizer is None:
        raise UserError("give tokenizer=… together with a model that is already loaded")
    check_tokenizer(tokenizer, config.data.template)
    return (model if is_adapted(model) else add_adapter(model, config.peft)), tokenizer


@dataclass
class TrainingData:
    """Units of token ids for training and holding out, prompts to answer, and what was left out on the way."""

    train: list[Unit]
    evaluation: list[Unit]
    prompts: list[list[Message]]  # held-out, without repeats
    records: dict[str, Any]  # what was read for training, by id
    counts: dict[str, Any] = field(default_factory=dict)
    held_out: list[Any] = field(default_factory=list)  # what was read and held out


@dataclass(frozen=True)
class View:
    """How examples are read, and how what was read becomes units of token ids."""

    record: type  # Pair, Unpaired, …; a list of these is taken as it is
    read: Callable[[Iterable[Any]], tuple[list[Any], dict[str, int]]]
    units: Callable[..., tuple[list[Unit], TokenCounts]]
    noun: str
    thin: Callable[[list[Any]], tuple[list[Any], dict[str, int]]] | None = None  # leaves out some of the training ones


Read = tuple[list[Any], list[Any], dict[str, Any]]  # records to train on, records to hold out, and what was left out
PROMPTS = View(Prompt, prompts, prompt_units, "prompt")


def load_pairs(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """Read, view as pairs, hold out, and tokenise."""
    return load_view(train, evaluation, tokenizer, config, View(Pair, pairs, pair_units, "pair"))


def load_answers(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """The same for single answers with a label; the answers of a pair are one desirable and one undesirable."""
    units = functools.partial(answer_units, seed=config.seed)
    return load_view(train, evaluation, tokenizer, config, View(Unpaired, unpaired, units, "labelled answer"))


def load_demonstrations(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """The same for answers to imitate."""
    return load_view(
        train, evaluation, tokenizer, config, View(Demonstration, demonstrations, demonstration_units, "answer")
    )


def load_prompts(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """The same for prompts that answers are sampled to."""
    return load_view(train, evaluation, tokenizer, config, PROMPTS)


def read_prompts(config: RunConfig) -> Read:
    """The prompts that config.data names, each once."""
    return read_view(None, None, config, PROMPTS)


def load_judged(
    train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, template: JudgmentTemplate, form: Form
) -> TrainingData:
    """The same for answers with a written judgment; satisfactory ones for training as config.judged.downsample says."""
    view = _judged_view(config, functools.partial(judged_units, template=template, form=form))
    return load_view(train, evaluation, tokenizer, config, view)


def read_judged(config: RunConfig) -> Read:
    """The answers with a written judgment that config.data names, before they are token ids."""
    return read_view(None, None, config, _judged_view(config, judged_units))


def _judged_view(config: RunConfig, units: Callable[..., tuple[list[Unit], TokenCounts]]) -> View:
    settings = config.judged
    read = functools.partial(judged, satisfied_from=settings.satisfied_from)
    thin = functools.partial(downsample, ratio=settings.downsample, seed=config.seed)
    return View(Judged, read, units, "judged answer", thin)


def load_improvements(
    train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, showing: Showing
) -> TrainingData:
    """The same for pairs as a reference answer and a better one."""
    units = functools.partial(improvement_units, showing=showing)
    return load_view(train, evaluation, tokenizer, config, View(Improvement, improvements, units, "improvement"))


def load_reference_answers(
    train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, showing: Showing
) -> TrainingData:
    """The same for answers that are to be improved: both ones of each pair."""
    units = functools.partial(reference_units, showing=showing)
    view = View(ReferenceAnswer, reference_answers, units, "reference answer")
    return load_view(train, evaluation, tokenizer, config, view)


def load_view(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, view: View) -> TrainingData:
    """What `view` makes of the training and the held-out source. None stands for the paths of config.data."""
    found, held_out, counts = read_view(train, evaluation, config, view)
    train_units, tokens = view.units(found, tokenizer, config.data)
    counts["train"] |= tokens.as_dict()
    eval_units: list[Unit] = []
    if held_out:
        eval_units, tokens = view.units(held_out, tokenizer, config.data)
        counts["eval"] = counts.get("eval", {}) | tokens.as_dict()
    records = {record.id: record for record in found}
    return TrainingData(train_units, eval_units, distinct_prompts(held_out), records, counts, held_out)


def read_view(train: Source, evaluation: Source, config: RunConfig, view: View) -> Read:
    """The records behind `load_view`: read, held out, thinned and limited as config.data says."""
    data, counts = config.data, {}
    train = data.path if train is None else train
    evaluation = data.eval_path if evaluation is None else evaluation
    if train is None:
        raise UserError("no data: give data=everyday or data.path=FILE|FOLDER|HUB_ID")
    found, counts["train"] = _read(train, data, data.split, config.seed, view)
    if evaluation is not None:
        held_out, counts["eval"] = _read(evaluation, data, data.eval_split, config.seed, view)
    else:
        found, held_out = split_by_prompt(found, data.eval_fraction)
    if data.part is not None:  # behind the held-out ones, which are the same for every part
        found, others = part_of(found, data.part)
        counts["train"]["other_parts"] = others
    if view.thin:
        found, left_out = view.thin(found)
        counts["train"] |= _left_out(left_out)
    return sampled(found, data.limit, config.seed), sampled(held_out, data.eval_limit, config.seed), counts


def _read(source: Source, data: DataConfig, split: str, seed: int, view: View) -> tuple[list[Any], dict[str, Any]]:
    is_list = isinstance(source, Sequence) and not isinstance(source, str)
    if is_list and all(isinstance(item, view.record) for item in source):
        return list(source), {}
    counts: dict[str, Any] = {}
    examples: Iterable[Any] = source
    if isinstance(source, str) or hasattr(source, "keys") or _are_paths(source):
        loaded = load_examples(source, format=data.format, split=split, on_bad_row=data.on_bad_row, seed=seed)
        examples = loaded.examples
        counts = {"rows": loaded.report.rows_read, "skipped": len(loaded.report.skipped)}
    found, left_out = view.read(examples)
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no preferences in it"
        raise UserError(f"no {view.noun} to train on in {source if isinstance(source, str) else 'the data'}: {reasons}")
    return found, counts | _left_out(left_out)


def _left_out(reasons: dict[str, int]) -> dict[str, int]:
    return {f"left_out_{reason}": count for reason, count in reasons.items() if count}


def _are_paths(source: Source) -> bool:
    return isinstance(source, Sequence) and len(source) > 0 and all(isinstance(item, str) for item in source)


def split_by_prompt(found: list[Any], fraction: float) -> tuple[list[Any], list[Any]]:
    """(training, held-out) pairs or answers: `fraction` of the prompts, of smallest hash; none is in both."""
    prompts = sorted({_hash(pair) for pair in found})
    chosen = set(prompts[: math.ceil(fraction * len(prompts))])
    train = [pair for pair in found if _hash(pair) not in chosen]
    if not train:
        raise UserError(f"data.eval_fraction={fraction} leaves nothing to train on: give data.eval_path, or lower it")
    return train, [pair for pair in found if _hash(pair) in chosen]


def part_of(found: list[Any], part: str) -> tuple[list[Any], int]:
    """(those of the third `part` of all prompts, how many others there are). A prompt's hash alone decides.

    So a prompt is in the same third whatever the view, and whatever rows are added or left out; the thirds are equal up
    to chance.
    """
    place = PARTS.index(part)
    chosen = [pair for pair in found if int.from_bytes(_hash(pair), "big") % len(PARTS) == place]
    if not chosen:
        raise UserError(f"data.part={part}: none of {len(found)} training examples is in this third; give more data")
    return chosen, len(found) - len(chosen)


def _hash(pair: Any) -> bytes:
    return hashlib.blake2b(json.dumps(pair.prompt, sort_keys=True).encode(), digest_size=8).digest()


def sampled(found: list[Any], limit: int | None, seed: int) -> list[Any]:
    """At most `limit` of them, the same ones for a seed."""
    if limit is None or len(found) <= limit:
        return found
    return random.Random(seed).sample(found, limit)


def distinct_prompts(found: Sequence[Any]) -> list[list[Message]]:
    seen = {json.dumps(pair.prompt, sort_keys=True): pair.prompt for pair in found}
    return list(seen.values())
