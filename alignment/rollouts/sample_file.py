"""`align sample`: prompts in, example records with their answers out, batch by batch."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alignment.config import ModelConfig
from alignment.data.example import Example, Message, Preference, Response, content_id
from alignment.data.readers import load_examples
from alignment.data.templates import check_tokenizer, encode_prompt
from alignment.errors import UserError
from alignment.models.adapters import load_beside
from alignment.models.loading import load_tokenizer, resolve
from alignment.models.precision import AUTO, settled_dtype
from alignment.resumable import OneProcess, ResumableFile
from alignment.rollouts.sample import sample


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    n: int = 4  # answers a prompt, of each model
    max_new_tokens: int = 256
    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 32  # answers made at once
    max_prompt_length: int = 1024  # tokens; a longer prompt is left out
    template: str = "chat"
    dtype: str = AUTO  # of the weights; what auto is here stands in its place

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        for name in ("n", "max_new_tokens", "batch_size", "max_prompt_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.temperature < 0:
            raise UserError(f"temperature={self.temperature}: must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p}: must be above 0 and at most 1")
        if self.temperature == 0 and self.n > 1:
            raise UserError(f"temperature=0 gives the same answer {self.n} times: n=1, or a temperature above 0")

    @property
    def prompts_at_once(self) -> int:
        return max(1, self.batch_size // self.n)


def sample_file(
    source: Any,
    out: Path,
    models: Sequence[str | ModelConfig],
    sampling: Sampling,
    *,
    keep: bool = False,
    format: str = "auto",
    split: str = "train",
    limit: int | None = None,
    overwrite: bool = False,
    asked: Callable[[list[Message]], list[Message]] | None = None,
    processes: OneProcess | None = None,
) -> str:
    """Answer every prompt of `source` with each of `models` and write one example record a prompt to `out`.

    A batch has random numbers of its own, from the seed, its place and the model: where the work was interrupted does
    not show in the answers. An answer without text cannot be a record's, so it is left out and counted.

    Args:
        source, format, split: as for `load_examples`; a prompt that stands there twice is answered once.
        out: ends in .jsonl; what is there of the same work is gone on with.
        models: as `model.path`, or with all that `model` says; answers carry the name as their `source`, in this order.
        keep: also write the answers that are there, with what is known about them, before the new ones.
        limit: at most so many prompts, sampled with the seed, in their order.
        overwrite: begin anew.
        asked: how a prompt is put to the models; None: as it stands.
        processes: those of the launch, each of which makes a part of the batches; None: this one alone.

    Returns:
        One or two lines for a person.

    Raises:
        UserError: as `load_examples`, `load_model` and `ResumableFile` do.
    """
    if not models:
        raise UserError("no model: give --model tiny, smollm2-135m, a folder, a run folder, a hub id or a .gguf file")
    loaded = load_examples(source, format=format, split=split)
    examples = by_prompt(loaded.examples, keep)
    if limit is not None and len(examples) > limit:
        examples = [examples[at] for at in sorted(random.Random(sampling.seed).sample(range(len(examples)), limit))]
    processes = processes or OneProcess()
    named = [ModelConfig(path=it, name=it, dtype=sampling.dtype) if isinstance(it, str) else it for it in models]
    answerers = [Answerer(model, place, sampling, asked) for place, model in enumerate(named)]
    short = _fitting(examples, answerers, sampling.max_prompt_length)
    settings = {
        "command": "sample",
        "models": [[model.name, digest_of_files(str(model.path))] for model in named],
        "prompts": hashlib.blake2b("".join(map(content_id, short)).encode(), digest_size=8).hexdigest(),
        "keep": keep,
        **asdict(sampling),
    }
    file = processes.file(out, settings, overwrite=overwrite, sources=[str(source)])

    def hint() -> str:
        return (
            f"stopped: {file.totals['prompts']} of {len(short)} prompts are answered in {out}; the same command goes on"
        )

    at_once = sampling.prompts_at_once
    pieces = [short[start : start + at_once] for start in range(0, len(short), at_once)]
    try:
        with processes.stoppable(hint), processes.progress("sampling", file.totals["prompts"], len(short)) as advance:
            for first in range(file.batches, len(pieces), processes.size):
                mine = first + processes.rank
                made = [_answered(pieces[mine], answerers, mine)] if mine < len(pieces) else []
                for rows, totals in processes.gathered(made):
                    file.add(rows, totals)
                    advance(len(rows))
                processes.after_batch()
    finally:
        file.close()
    return _summary(file, out, len(examples) - len(short), loaded.report.summary())


def _fitting(examples: Sequence[Example], answerers: Sequence[Answerer], longest: int) -> list[Example]:
    """Those whose prompt is at most so many tokens for every model; UserError where none is."""
    found = [each for each in examples if all(len(one.encode(each)) <= longest for one in answerers)]
    if not found:
        raise UserError(f"all {len(examples)} prompts are over max_prompt_length={longest} tokens")
    return found


def _answered(
    examples: Sequence[Example], answerers: Sequence[Answerer], batch: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of one batch, and their sums."""
    rows = [Example.from_dict(example.to_dict()) for example in examples]
    totals = Counter(prompts=len(rows))
    for one in answerers:
        totals += one.answer(rows, batch)
    return [row.to_dict() for row in rows], totals


def by_prompt(examples: Iterable[Example], keep: bool) -> list[Example]:
    """One example for every prompt, in order of first appearance: without answers, or with those of all its examples.

    `meta` is the first one's.
    """
    found: dict[str, Example] = {}
    for example in examples:
        stale = ("id",) if keep else ("id", "sampled")  # of answers that are not here
        meta = {key: value for key, value in example.meta.items() if key not in stale}
        group = found.setdefault(json.dumps(example.prompt, sort_keys=True), Example(example.prompt, meta=meta))
        if keep:
            start = len(group.responses)
            group.responses += example.responses
            group.preferences += [
                Preference(start + given.first, start + given.second, given.p_first, given.margin)
                for given in example.preferences
            ]
    return list(found.values())


class Answerer:
    """One of the models: its tokenizer at once, its weights with the first batch.

    Args:
        place: among the models, so that the same model named twice gives different answers.
        asked: how a prompt is put to it.
    """

    def __init__(
        self,
        config: ModelConfig,
        place: int,
        sampling: Sampling,
        asked: Callable[[list[Message]], list[Message]] | None = None,
    ) -> None:
        self.config, self.name, self.place, self.sampling = config, config.name, place, sampling
        self.asked = asked or (lambda prompt: prompt)
        self.tokenizer = load_tokenizer(config)
        check_tokenizer(self.tokenizer, sampling.template)
        self.model: Any = None

    def encode(self, example: Example) -> list[int]:
        """Token ids of the prompt."""
        return encode_prompt(self.tokenizer, self.asked(example.prompt), self.sampling.template)

    def answer(self, rows: Sequence[Example], batch: int) -> Counter[str]:
        """Add `sampling.n` answers to each example, and to `meta["sampled"]` how they were made; counts of answers."""
        if self.model is None:
            model = load_beside(self.config)
            self.model = model.to("cuda") if torch.cuda.is_available() else model
        n = self.sampling.n
        answers = sample(
            self.model,
            self.tokenizer,
            [ids for ids in map(self.encode, rows) for _ in range(n)],
            max_new_tokens=self.sampling.max_new_tokens,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            batch_size=self.sampling.batch_size,
            seed=random.Random(f"{self.sampling.seed}-{self.place}-{batch}").getrandbits(32),
        )
        totals: Counter[str] = Counter()
        for place, row in enumerate(rows):
            own = answers[place * n : (place + 1) * n]
            said = [answer for answer in own if answer.text]
            cut = [not answer.finished for answer in said]
            made = {
                "model": self.name,
                "responses": [len(row.responses) + number for number in range(len(said))],
                "cut": cut,
                "empty": len(own) - len(said),
                **{key: getattr(self.sampling, key) for key in ("temperature", "top_p", "max_new_tokens", "seed")},
            }
            row.meta["sampled"] = [*row.meta.get("sampled", []), made]
            row.responses += [Response.of(answer.text, source=self.name) for answer in said]
            totals.update(answers=len(said), cut=sum(cut), empty=len(own) - len(said))
        return totals


def _summary(file: ResumableFile, out: Path, too_long: int, read: str) -> str:
    totals = file.totals
    parts = [f"{totals['answers']} answers to {totals['prompts']} prompts in {out}"]
    for count, what in (
        (totals["cut"], "cut at max_new_tokens"),
        (totals["empty"], "without text, left out"),
        (too_long, "prompts over max_prompt_length, left out"),
    ):
        parts += [f"{count} {what}"] if count else []
    return f"{read}\n{'; '.join(parts)}"


def digest_of_files(name: str) -> str | None:
    """A digest of a model folder's content, so that a folder trained further is not taken for the same; None for a hub
    id, whose files change with its revision alone. Takes a second or two a gigabyte.
    """
    folder = Path(resolve(name))
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".bin", ".json", ".jinja"):
            digest.update(file.name.encode())
            with file.open("rb") as content:
                while piece := content.read(1 << 22):
                    digest.update(piece)
    return digest.hexdigest()
