"""How much a model varies: over the answers to one prompt, and over the prompts. All models over sets of one size."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from alignment.errors import UserError
from alignment.evaluation.metrics.diversity import (
    across_inputs,
    distinct_n,
    ead,
    embedding_distance,
    equal_models,
    nli_diversity,
    per_input,
    self_bleu,
)
from alignment.evaluation.models.answers import Answers
from alignment.evaluation.models.cells import Cell, series_cell, set_cell
from alignment.evaluation.models.kept import kept_values
from alignment.evaluation.models.measures import against
from alignment.evaluation.models.prompts import digest
from alignment.evaluation.models.sampled import slug
from alignment.evaluation.models.weights import key_of, let_go
from alignment.resumable import OneProcess

T = TypeVar("T")
Sets = Mapping[str, Sequence[Sequence[T]]]  # of each model: the answers to each prompt, as texts or vectors
VERSION = 1  # raised where what is stored changes its meaning
EMBEDDING, NLI = "embedding distance", "NLI"
OF_TEXTS: dict[str, Callable[[Sequence[str]], float]] = {
    "distinct-1": lambda texts: distinct_n(texts, 1),
    "distinct-2": lambda texts: distinct_n(texts, 2),
    "EAD": ead,
    "self-BLEU": self_bleu,
}
# Over all inputs self-BLEU and NLI would compare every answer with hundreds of others on other matters.
ACROSS = ("distinct-1", "distinct-2", "EAD")


@dataclass
class Reader:
    """A model that reads texts, loaded when it is first needed: `build` makes it of its name."""

    spec: str
    build: Callable[[str], Any]
    _built: Any = None

    @cached_property
    def key(self) -> list[Any]:
        """What its weights are."""
        return key_of(self.spec, "float32")

    @property
    def model(self) -> Any:
        self._built = self._built or self.build(self.spec)
        return self._built

    def release(self) -> None:
        """Let the weights go."""
        self._built = None
        let_go()


@dataclass
class Readings:
    """What models that read texts say of answers. Empty where none was asked.

    Attributes:
        vectors: a model's name -> of each prompt, the embeddings of its K answers, float32 (K, d).
        contradictions: two answers to one prompt -> how far the second contradicts the first, in [-1, 1].
    """

    vectors: dict[str, list[np.ndarray]] = field(default_factory=dict)
    contradictions: dict[tuple[str, str], float] = field(default_factory=dict)


def vectors_of(answers: Answers, embedder: Reader, folder: Path, processes: OneProcess) -> list[np.ndarray]:
    """The embeddings of a model's answers, float32 (K, d) for each prompt, out of FOLDER/embeddings."""

    def made(rows: Sequence[list[str]]) -> list[str]:
        found = embedder.model([text for row in rows for text in row])
        cut = np.split(found, np.cumsum([len(row) for row in rows])[:-1])
        return [base64.b64encode(each.astype("<f4").tobytes()).decode() for each in cut]

    found = _read(answers, embedder, "embeddings", "vectors", made, folder, processes)
    return [
        np.frombuffer(base64.b64decode(each), "<f4").reshape(len(row), -1 if row else 0)
        for each, row in zip(found, answers.said, strict=True)
    ]


def contradictions_of(
    answers: Answers, nli: Reader, folder: Path, processes: OneProcess
) -> dict[tuple[str, str], float]:
    """How far each two answers to a prompt contradict each other, in both orders, out of FOLDER/contradictions."""

    def made(rows: Sequence[list[str]]) -> list[list[float]]:
        asked = [pair for row in rows for pair in permutations(row, 2)]
        said = iter(nli.model(asked))
        return [[next(said) for _ in permutations(row, 2)] for row in rows]

    found = _read(answers, nli, "contradictions", "scores", made, folder, processes)
    texts = [[said.text for said in row] for row in answers.said]
    return {
        pair: score
        for row, scores in zip(texts, found, strict=True)
        for pair, score in zip(permutations(row, 2), scores, strict=True)
    }


def _read(
    answers: Answers,
    reader: Reader,
    kind: str,
    field: str,
    made: Callable[[Sequence[list[str]]], list[Any]],
    folder: Path,
    processes: OneProcess,
) -> list[Any]:
    settings = {"command": "eval", "version": VERSION, "by": reader.key}
    path = folder / kind / f"{answers.key}-by-{slug(reader.spec)}-{digest(settings)}.jsonl"
    rows = [[said.text for said in row] for row in answers.said]
    settings["answers"] = answers.key
    return kept_values(path, settings, f"{reader.spec} reads {answers.of.name}", field, rows, made, processes)


def diversity_cells(
    models: Sequence[Answers], readings: Readings, baseline: str, seed: int = 0
) -> tuple[list[Cell], list[str]]:
    """(the cells, what is to be said of them): per input and across inputs, over the prompts that all have answered.

    Every set has as many answers as the smallest: what these measures give depends on it. No cells, and why, where
    that is one answer, or there are no two prompts.
    """
    shared = [p for p in range(len(models[0].said)) if all(one.said[p] for one in models)]
    size = min((len(one.said[p]) for p in shared for one in models), default=0)
    if size < 2 or len(shared) < 2:
        return [], ["No diversity: it takes two prompts to which every model has two answers or more."]
    texts = {one.of.name: [[said.text for said in one.said[p][:size]] for p in shared] for one in models}
    equal_models(texts)
    made = _Made(baseline, size, seed)
    for metric, measure in _of_texts().items():
        made.per_input(metric, texts, measure)
    for metric in ACROSS:
        made.across(metric, texts, OF_TEXTS[metric])
    notes = _embedded(made, readings, shared) if readings.vectors else []
    if readings.contradictions:
        said = readings.contradictions
        made.per_input(NLI, texts, partial(nli_diversity, contradiction=lambda a, b: said[a, b]))
    return made.cells, notes


@dataclass
class _Made:
    """Cells of all models over the same sets."""

    baseline: str
    size: int
    seed: int
    cells: list[Cell] = field(default_factory=list)

    def per_input(self, metric: str, sets: Sets[T], measure: Callable[[Sequence[T]], float]) -> None:
        series = {name: per_input(own, measure) for name, own in sets.items()}
        for name, values in series.items():
            cell = ("answers", "", f"{metric}, per input", name)
            self.cells.append(series_cell(cell, values, against(series, name, self.baseline), self.seed))

    def across(self, metric: str, sets: Sets[T], measure: Callable[[Sequence[T]], float]) -> None:
        """The mean over the places among a prompt's answers."""

        def mean(rows: Sequence[Sequence[T]]) -> float:
            return float(np.mean(across_inputs(rows, measure)))

        for name, own in sets.items():
            cell = ("answers", "", f"{metric}, across inputs", name)
            self.cells.append(set_cell(cell, own, against(sets, name, self.baseline), mean, {"answers": self.size}))


def _embedded(made: _Made, readings: Readings, shared: Sequence[int]) -> list[str]:
    """The cells of the embedding distance; a vector of zeros (no text) has no direction, so its prompt is left out."""
    vectors = {name: [rows[p][: made.size] for p in shared] for name, rows in readings.vectors.items()}
    whole = [at for at in range(len(shared)) if all(rows[at].any(axis=1).all() for rows in vectors.values())]
    left = len(shared) - len(whole)
    notes = [f"Embedding distance: prompts left out, as some answer to them is empty: {left:,}."] if left else []
    if len(whole) > 1:
        sets = {name: [list(rows[at]) for at in whole] for name, rows in vectors.items()}
        made.per_input(EMBEDDING, sets, embedding_distance)
        made.across(EMBEDDING, sets, embedding_distance)
    return notes


def _of_texts() -> dict[str, Callable[[Sequence[str]], float]]:
    """Those of OF_TEXTS whose packages are installed."""
    with suppress(UserError):
        self_bleu([])
        return OF_TEXTS
    return {name: measure for name, measure in OF_TEXTS.items() if name != "self-BLEU"}
