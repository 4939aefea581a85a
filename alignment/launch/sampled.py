"""Stages that sample: prompts of a run in a file, and how its answers to them are drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from alignment.config import ModelConfig, RunConfig
from alignment.data.example import Example, Message
from alignment.errors import UserError
from alignment.evaluation.files import write_atomically
from alignment.launch.stages import Stages
from alignment.resumable import totals_of
from alignment.rollouts.sample_file import Sampling, sample_file


def sampling(config: RunConfig, seed: int, answers: int) -> Sampling:
    """How `answers` answers to each prompt are drawn, as config.rollout says; UserError where that makes no sense."""
    settings = config.rollout
    if settings.top_k:
        raise UserError(f"rollout.top_k={settings.top_k}: here it is sampled by temperature and top_p alone")
    return Sampling(
        n=answers,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=seed,
        batch_size=settings.batch_size,
        max_prompt_length=config.data.max_prompt_length,
        template=config.data.template,
        dtype=config.model.dtype,
    )


def write_examples(file: Path, examples: Iterable[Example]) -> None:
    """A file of example records."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = (json.dumps(example.to_dict(), ensure_ascii=False, default=str) + "\n" for example in examples)
    write_atomically(file, "".join(rows))


def sampled_answers(
    stages: Stages,
    out: Path,
    prompts: Iterable[Example],
    model: ModelConfig,
    settings: Sampling,
    asked: Callable[[list[Message]], list[Message]] | None = None,
) -> Counter[str]:
    """Answer `prompts` with `model` in the file `out`, prompts.jsonl beside it; the sums as of `sample_file`."""
    given = out.with_name("prompts.jsonl")
    stages.on_first(lambda: write_examples(given, prompts))
    sample_file(str(given), out, [model], settings, asked=asked, processes=stages.processes)
    return stages.on_first(lambda: totals_of(out))
