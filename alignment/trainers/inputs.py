"""What a trainer is given -> what it trains: a policy with its tokenizer, and units to train on and to hold out."""

from __future__ import annotations

import functools
import json
import math
import random
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.batching.groups import Unit
from alignment.batching.improvements import Showing, improvement_units, reference_units
from alignment.batching.judged import Form, judged_units
from alignment.batching.stored import StoredUnits
from alignment.batching.units import TokenCounts, answer_units, demonstration_units, pair_units, prompt_units
from alignment.config import DataConfig, RunConfig
from alignment.data.example import Message
from alignment.data.examples import Examples
from alignment.data.judged_view import downsample, judged
from alignment.data.judgment_prompts import JudgmentTemplate
from alignment.data.readers import load_examples
from alignment.data.templates import check_tokenizer
from alignment.data.viewed import ById, Read, Viewed, prompt_hash
from alignment.data.views import (
    Demonstration,
    Improvement,
    Judged,
    Pair,
    Prompt,
    ReferenceAnswer,
    Unpaired,
    demonstrations,
    improvements,
    pairs,
    prompts,
    reference_answers,
    unpaired,
)
from alignment.errors import UserError
from alignment.models.adapters import add_adapter, is_adapted
from alignment.models.loading import load_model, load_tokenizer
from alignment.trainers import preparation
from alignment.trainers.parts import in_part
from alignment.trainers.streaming import streamed

COUNTS, UNITS = "counts.json", "units.arrow"  # of what is prepared on disk
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

    train: Any  # a sequence of units, or a UnitStream
    evaluation: Sequence[Unit]
    prompts: list[list[Message]]  # held-out, without repeats
    records: Any  # what was read for training, by id: a mapping
    counts: dict[str, Any] = field(default_factory=dict)
    held_out: Sequence[Any] = field(default_factory=list)  # what was read and held out


@dataclass(frozen=True)
class View:
    """How examples are read, and how what was read becomes units of token ids."""

    record: type  # Pair, Unpaired, …; a list of these is taken as it is
    read: Read
    units: Callable[..., tuple[list[Unit], TokenCounts]]
    noun: str
    thin: Callable[[list[Any]], tuple[list[Any], dict[str, int]]] | None = None  # leaves out some of the training ones
    # Whether a record, and its unit, depends on one example alone: then a large set need not be in memory.
    by_example: bool = False


# Records to train on, records to hold out, and what was left out.
Records = tuple[Sequence[Any], Sequence[Any], dict[str, Any]]
PAIRS = View(Pair, pairs, pair_units, "pair", by_example=True)
PROMPTS = View(Prompt, prompts, prompt_units, "prompt")


def load_pairs(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """Read, view as pairs, hold out, and tokenise."""
    return load_view(train, evaluation, tokenizer, config, PAIRS)


def load_answers(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """The same for single answers with a label; the answers of a pair are one desirable and one undesirable."""
    units = functools.partial(answer_units, seed=config.seed)
    return load_view(train, evaluation, tokenizer, config, View(Unpaired, unpaired, units, "labelled answer"))


def load_demonstrations(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """The same for answers to imitate."""
    view = View(Demonstration, demonstrations, demonstration_units, "answer", by_example=True)
    return load_view(train, evaluation, tokenizer, config, view)


def load_prompts(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig) -> TrainingData:
    """The same for prompts that answers are sampled to."""
    return load_view(train, evaluation, tokenizer, config, PROMPTS)


def read_prompts(config: RunConfig) -> Records:
    """The prompts that config.data names, each once."""
    return read_view(None, None, config, PROMPTS)


def load_judged(
    train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, template: JudgmentTemplate, form: Form
) -> TrainingData:
    """The same for answers with a written judgment; satisfactory ones for training as config.judged.downsample says."""
    view = _judged_view(config, functools.partial(judged_units, template=template, form=form))
    return load_view(train, evaluation, tokenizer, config, view)


def read_judged(config: RunConfig) -> Records:
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
    view = View(Improvement, improvements, units, "improvement", by_example=True)
    return load_view(train, evaluation, tokenizer, config, view)


def load_reference_answers(
    train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, showing: Showing
) -> TrainingData:
    """The same for answers that are to be improved: both ones of each pair."""
    units = functools.partial(reference_units, showing=showing)
    view = View(ReferenceAnswer, reference_answers, units, "reference answer")
    return load_view(train, evaluation, tokenizer, config, view)


def load_view(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, view: View) -> TrainingData:
    """What `view` makes of the training and the held-out source. None stands for the paths of config.data.

    A large set is prepared on disk, once for all starts and ranks (`trainers/preparation.py`). With data.streaming it
    is read while training (`trainers/streaming.py`), and only the held-out source is read here.
    """
    if config.data.streaming:
        return _streaming(train, evaluation, tokenizer, config, view)
    place = preparation.place_of(train, evaluation, tokenizer, config, view)
    if place is not None and preparation.once(
        place, lambda into: _store(read_view(train, evaluation, config, view), into, tokenizer, config, view)
    ):
        return _stored(place, view)
    found, held_out, counts = read_view(train, evaluation, config, view)
    if isinstance(found, Viewed):
        folder = Path(tempfile.mkdtemp(prefix="alignment-prepared-"))
        _store((found, held_out, counts), folder, tokenizer, config, view)
        data = _stored(folder, view)
        weakref.finalize(data, shutil.rmtree, folder, ignore_errors=True)  # what is mapped stays readable
        return data
    train_units, tokens = view.units(found, tokenizer, config.data)
    counts["train"] |= tokens.as_dict()
    eval_units: list[Unit] = []
    if held_out:
        eval_units, tokens = view.units(held_out, tokenizer, config.data)
        counts["eval"] = counts.get("eval", {}) | tokens.as_dict()
    records = {record.id: record for record in found}
    return TrainingData(train_units, eval_units, distinct_prompts(held_out), records, counts, held_out)


def _streaming(train: Source, evaluation: Source, tokenizer: Any, config: RunConfig, view: View) -> TrainingData:
    if train is not None:
        raise UserError("data.streaming=true reads data.path; leave out train=…, which is in memory already")
    counts: dict[str, Any] = {"train": {}}
    stream = streamed(config, tokenizer, view, counts["train"])
    data, evaluation = config.data, config.data.eval_path if evaluation is None else evaluation
    if evaluation is None:
        return TrainingData(stream, [], [], {}, counts)
    held_out, counts["eval"] = _read(evaluation, data, data.eval_split, config.seed, view, math.inf)
    held_out = sampled(held_out, data.eval_limit, config.seed)
    eval_units, tokens = view.units(held_out, tokenizer, data)
    counts["eval"] |= tokens.as_dict()
    return TrainingData(stream, eval_units, distinct_prompts(held_out), {}, counts, held_out)


def _store(read: Records, folder: Path, tokenizer: Any, config: RunConfig, view: View) -> bool:
    """Write records and units into `folder`; False, and nothing written, where they are few."""
    found, held_out, counts = read
    if not isinstance(found, Viewed):
        return False
    for name, records in (("train", found), ("eval", held_out)):
        if isinstance(records, Viewed) and len(records):
            records.save(folder / name)
            tokens = preparation.store_units(folder / name / UNITS, records, view.units, tokenizer, config.data)
            counts[name] = counts.get(name, {}) | tokens.as_dict()
    (folder / COUNTS).write_text(json.dumps(counts))
    return True


def _stored(folder: Path, view: View) -> TrainingData:
    """What `_store` wrote."""
    counts = json.loads((folder / COUNTS).read_text())
    found, units = Viewed.open(folder / "train", view.read), StoredUnits(folder / "train" / UNITS)
    if not (folder / "eval").is_dir():
        return TrainingData(units, [], [], ById(found), counts, [])
    held_out = Viewed.open(folder / "eval", view.read)
    eval_units = StoredUnits(folder / "eval" / UNITS)
    return TrainingData(units, eval_units, distinct_prompts(held_out), ById(found), counts, held_out)


def read_view(train: Source, evaluation: Source, config: RunConfig, view: View) -> Records:
    """The records behind `load_view`: read, held out, thinned and limited as config.data says."""
    data, counts = config.data, {}
    train = data.path if train is None else train
    evaluation = data.eval_path if evaluation is None else evaluation
    if train is None:
        raise UserError("no data: give data=everyday or data.path=FILE|FOLDER|HUB_ID")
    few = math.inf if _are_records(evaluation, view) else preparation.LARGE  # both are on disk, or none is
    found, counts["train"] = _read(train, data, data.split, config.seed, view, few)
    if evaluation is not None:
        few = 0 if isinstance(found, Viewed) else math.inf
        held_out, counts["eval"] = _read(evaluation, data, data.eval_split, config.seed, view, few)
    else:
        found, held_out = split_by_prompt(found, data.eval_fraction)
    if data.part is not None:  # behind the held-out ones, which are the same for every part
        found, others = part_of(found, data.part)
        counts["train"]["other_parts"] = others
    if view.thin:
        found, left_out = view.thin(list(found))
        counts["train"] |= _left_out(left_out)
    return sampled(found, data.limit, config.seed), sampled(held_out, data.eval_limit, config.seed), counts


def _read(
    source: Source, data: DataConfig, split: str, seed: int, view: View, few: float
) -> tuple[Sequence[Any], dict[str, Any]]:
    """The records of one source, in memory where it has no more than `few` examples."""
    if _are_records(source, view):
        return list(source), {}
    counts: dict[str, Any] = {}
    examples: Iterable[Any] = source
    if isinstance(source, str) or hasattr(source, "keys") or _are_paths(source):
        loaded = load_examples(source, format=data.format, split=split, on_bad_row=data.on_bad_row, seed=seed)
        examples = loaded.examples
        counts = {"rows": loaded.report.rows_read, "skipped": len(loaded.report.skipped)}
    found: Sequence[Any]
    if view.by_example and isinstance(examples, Examples) and len(examples) > few:
        found, left_out = preparation.view_examples(examples, view.read, data.workers)
    else:
        found, left_out = view.read(examples)
    if not found:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no preferences in it"
        raise UserError(f"no {view.noun} to train on in {source if isinstance(source, str) else 'the data'}: {reasons}")
    return found, counts | _left_out(left_out)


def _left_out(reasons: dict[str, int]) -> dict[str, int]:
    return {f"left_out_{reason}": count for reason, count in reasons.items() if count}


def _are_records(source: Source, view: View) -> bool:
    return (
        isinstance(source, Sequence)
        and not isinstance(source, str)
        and all(isinstance(item, view.record) for item in source)
    )


def _are_paths(source: Source) -> bool:
    return isinstance(source, Sequence) and len(source) > 0 and all(isinstance(item, str) for item in source)


def split_by_prompt(found: Sequence[Any], fraction: float) -> tuple[Sequence[Any], Sequence[Any]]:
    """(training, held-out) pairs or answers: `fraction` of the prompts, of smallest hash; none is in both."""
    prompts = _prompts(found)
    distinct = np.unique(prompts)
    held_out = np.isin(prompts, distinct[: math.ceil(fraction * len(distinct))])
    if held_out.all():
        raise UserError(f"data.eval_fraction={fraction} leaves nothing to train on: give data.eval_path, or lower it")
    return _chosen(found, np.flatnonzero(~held_out)), _chosen(found, np.flatnonzero(held_out))


def part_of(found: Sequence[Any], part: str) -> tuple[Sequence[Any], int]:
    """(those of the third `part` of all prompts, how many others there are). A prompt's hash alone decides.

    So a prompt is in the same third whatever the view, and whatever rows are added or left out; the thirds are equal up
    to chance.
    """
    chosen = np.flatnonzero(in_part(_prompts(found), part))
    if not len(chosen):
        raise UserError(f"data.part={part}: none of {len(found)} training examples is in this third; give more data")
    return _chosen(found, chosen), len(found) - len(chosen)


def _prompts(found: Sequence[Any]) -> np.ndarray:
    """(len(found),) uint64: the hash of each one's prompt."""
    if isinstance(found, Viewed):
        return found.prompts
    return np.fromiter(map(prompt_hash, found), dtype=np.uint64, count=len(found))


def _chosen(found: Sequence[Any], places: Any) -> Sequence[Any]:
    return found.select(places) if isinstance(found, Viewed) else [found[place] for place in places]


def sampled(found: Sequence[Any], limit: int | None, seed: int) -> Sequence[Any]:
    """At most `limit` of them, the same ones for a seed."""
    if limit is None or len(found) <= limit:
        return found
    return _chosen(found, random.Random(seed).sample(range(len(found)), limit))


def distinct_prompts(found: Sequence[Any]) -> list[list[Message]]:
    seen = {json.dumps(pair.prompt, sort_keys=True): pair.prompt for pair in found}
    return list(seen.values())
