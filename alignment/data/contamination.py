"""How much of an evaluation set a model has seen in training: n-grams, exact copies and near-copies.

Of an evaluation example two *parts* are looked at: its prompt, and the answers that it carries. Each is cut into its
distinct n-grams of words, and the share of them that occurs in training prompts, in training answers, and in either, is
its overlap. Nothing but hashes of the evaluation sets is held, and training rows stream by in batches.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from alignment.data.checks import prompt_key
from alignment.data.near_duplicates import NearestTexts, nearest_vectors
from alignment.data.ngrams import NgramIndex
from alignment.data.overlap_texts import Row, words
from alignment.errors import UserError

PARTS = ("prompt", "answers")
IN_PROMPTS, IN_ANSWERS = 0, 1  # where in the training data
BATCH = 1000  # training rows at a time
NAMED = 5  # training rows named for one example


@dataclass(frozen=True)
class Found:
    """A training row that an evaluation example has something in common with."""

    row: str
    shared: int  # n-grams


@dataclass
class Flagged:
    """One evaluation example's part that is a copy, a near-copy, or has at least the threshold's share of n-grams."""

    id: str
    part: str
    text: str
    ngrams: int  # distinct ones
    in_prompts: float  # shares of them
    in_answers: float
    share: float  # in either
    exact: list[str] = field(default_factory=list)  # training rows
    near: tuple[str, float] | None = None  # the most similar training prompt and its cosine
    rows: list[Found] = field(default_factory=list)


@dataclass
class PartOverlap:
    """One part of an evaluation set. Shares are in [0, 1]; intervals are 95 % (Wilson)."""

    part: str
    examples: int  # that have this part, with n-grams that count
    short: int  # of these, shorter than n words: they match as a whole or not
    any: int  # examples with an n-gram in common
    over: int  # … with the threshold's share
    over_share: float
    over_ci95: tuple[float, float] | None
    in_prompts: float  # means over examples
    in_answers: float
    share: float
    exact: int  # a training conversation is or begins with the same prompt; of answers, the same prompt and answer
    near: int | None  # no exact copies, and a training prompt as similar as asked for; None: not looked for
    flagged: list[Flagged] = field(default_factory=list)


@dataclass
class Embedded:
    """One evaluation set's prompts by the embeddings of a model: each with the training prompt most like it."""

    model: str
    median: float  # of the cosines to the most similar training prompt, after the mean is taken off
    over: int  # prompts with a cosine of the threshold or more
    threshold: float
    nearest: list[tuple[str, str, float]]  # (example, training row, cosine), the most similar ones first


@dataclass
class Contamination:
    """All evaluation sets against one training set."""

    n: int
    threshold: float
    near_threshold: float | None
    most_rows: int | None
    train_rows: int
    sets: dict[str, list[PartOverlap]]
    embedded: dict[str, Embedded] = field(default_factory=dict)  # where a model was given

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)


@dataclass
class _Unit:
    """A part of an evaluation example, held while training rows stream by."""

    set: str
    row: Row
    part: str
    length: int  # words, of its longest text
    grams: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    keys: list[bytes] = field(default_factory=list)
    exact: list[int] = field(default_factory=list)
    exact_rows: int = 0


def contamination(
    train: Iterable[Row],
    evaluations: Mapping[str, Sequence[Row]],
    *,
    n: int = 8,
    threshold: float = 0.5,
    near: float | None = None,
    most_rows: int | None = None,
) -> Contamination:
    """Look for each evaluation set in the training rows.

    Args:
        train: rows, streamed once.
        evaluations: by name.
        n: words of an n-gram; 8, or 13 as in GPT-3's report. A text with fewer words counts as one n-gram, and is found
            only where a whole training prompt's turn or answer is the same words.
        threshold: share of n-grams from which an example is listed, in (0, 1].
        near: cosine of character n-grams from which a training prompt is a near-copy; None: not looked for.
        most_rows: an n-gram that more training rows have is boilerplate and does not count (GPT-3: 10). None: all do.

    Raises:
        UserError: a setting out of its range.
    """
    _check(n, threshold, near, most_rows)
    units = [unit for name, rows in evaluations.items() for row in rows for unit in _units(name, row)]
    index = _index(units, n)
    prompts = [unit for unit in units if unit.part == "prompt"]
    nearest = None if near is None else NearestTexts([_text(unit.row, "prompt") for unit in prompts], near)
    by_key: defaultdict[bytes, list[_Unit]] = defaultdict(list)
    for unit in units:
        for key in unit.keys:
            by_key[key].append(unit)
    names: list[str] = []  # of the training rows; the rows themselves are let go
    for batch in _batches(train, BATCH if nearest is None else min(BATCH, nearest.batch)):
        _stream(batch, len(names), index, nearest, by_key)
        names += [row.id for row in batch]
    near_of = {} if nearest is None else _near_of(prompts, nearest, names)
    grouped: dict[str, list[PartOverlap]] = {}
    for name in evaluations:
        for part in PARTS:
            chosen = [unit for unit in units if unit.set == name and unit.part == part]
            if chosen or part == "prompt":
                looked = nearest is not None and part == "prompt"
                found = _part(part, chosen, index, names, near_of if looked else None, threshold, most_rows)
                grouped.setdefault(name, []).append(found)
    return Contamination(n, threshold, near, most_rows, len(names), grouped)


def _check(n: int, threshold: float, near: float | None, most_rows: int | None) -> None:
    if n < 1:
        raise UserError(f"n={n}: an n-gram has at least 1 word")
    for name, value in (("threshold", threshold), ("near", near)):
        if value is not None and not 0 < value <= 1:
            raise UserError(f"{name}={value}: must be above 0 and at most 1")
    if most_rows is not None and most_rows < 1:
        raise UserError(f"most_rows={most_rows}: must be at least 1")


def _units(name: str, row: Row) -> Iterator[_Unit]:
    yield _Unit(name, row, "prompt", max((len(words(turn)) for turn in row.turns), default=0), keys=[row.key])
    answers = [answer for answer in row.answers if answer.strip()]
    if answers:
        longest = max(len(words(answer)) for answer in answers)
        yield _Unit(name, row, "answers", longest, keys=[_answer_key(row.key, answer) for answer in answers])


def _answer_key(prompt: bytes, answer: str) -> bytes:
    return prompt + " ".join(answer.split()).casefold().encode("utf-8", "surrogatepass")


def _copies(row: Row) -> Iterator[bytes]:
    """Keys of what a training row is a copy of: its prompt and answers, and those of each beginning of the talk."""
    for end, turn in enumerate(row.prompt, start=1):
        if turn["role"] in ("system", "assistant"):
            continue
        key = prompt_key(row.prompt[:end])
        yield key
        following = row.answers if end == len(row.prompt) else (row.prompt[end]["content"],)
        yield from (_answer_key(key, answer) for answer in following)


def _texts(row: Row, part: str) -> list[str]:
    return row.turns if part == "prompt" else list(row.answers)


def _text(row: Row, part: str) -> str:
    return "\n".join(_texts(row, part))


def _index(units: Sequence[_Unit], n: int) -> NgramIndex:
    """The n-grams of all units; those of one unit's texts are put together."""
    texts = [(unit, words(text)) for unit in units for text in _texts(unit.row, unit.part)]
    index = NgramIndex([text for _, text in texts], n)
    parts: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for (unit, _), grams in zip(texts, index.grams, strict=True):
        parts[id(unit)].append(grams)
    for unit in units:
        if parts[id(unit)]:
            unit.grams = np.unique(np.concatenate(parts[id(unit)]))
    index.grams.clear()  # the units have them
    return index


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    stream = iter(rows)
    while batch := list(islice(stream, size)):
        yield batch


def _stream(
    batch: Sequence[Row],
    first: int,
    index: NgramIndex,
    nearest: NearestTexts | None,
    by_key: Mapping[bytes, list[_Unit]],
) -> None:
    """Count one batch of training rows, of which the first is number `first`."""
    numbered = list(enumerate(batch, start=first))
    sides = ((IN_PROMPTS, "prompt"), (IN_ANSWERS, "answers"))
    index.add((place, side, text) for place, row in numbered for side, part in sides for text in _texts(row, part))
    for place, row in numbered:
        for found in set(_copies(row)):
            for unit in by_key.get(found, ()):
                if unit.exact[-1:] != [place]:
                    unit.exact_rows += 1
                    unit.exact += [place] * (len(unit.exact) < NAMED)
    if nearest is not None:
        nearest.add([place for place, _ in numbered], [_text(row, "prompt") for row in batch])


def _near_of(units: Sequence[_Unit], nearest: NearestTexts, names: Sequence[str]) -> dict[int, tuple[str, float]]:
    return {
        id(unit): (names[row], float(cosine))
        for unit, row, cosine in zip(units, nearest.rows.tolist(), nearest.cosines, strict=True)
        if row >= 0
    }


def _part(
    part: str,
    units: Sequence[_Unit],
    index: NgramIndex,
    names: Sequence[str],
    near_of: Mapping[int, tuple[str, float]] | None,
    threshold: float,
    most_rows: int | None,
) -> PartOverlap:
    from alignment.evaluation.statistics import share_interval

    counted, rows, flagged, near = [], [], [], 0
    for unit in units:
        grams = unit.grams
        if most_rows is not None:
            grams = grams[index.counts[grams].max(axis=1, initial=0) <= most_rows]
        share = _shares(index, grams)
        close = None if near_of is None else near_of.get(id(unit))
        near += close is not None and not unit.exact
        if len(grams):
            counted.append(unit)
            rows.append(share)
        if share[2] >= threshold or unit.exact or close:
            flagged.append(_flag(unit, grams, share, close, index, names))
    shares = np.array(rows).reshape(-1, 3)
    over = int((shares[:, 2] >= threshold).sum())
    means = shares.mean(axis=0).tolist() if counted else [0.0] * 3
    flagged.sort(key=lambda one: (-one.share, -len(one.exact), one.id))
    return PartOverlap(
        part,
        examples=len(counted),
        short=sum(unit.length < index.n for unit in counted),
        any=int((shares[:, 2] > 0).sum()),
        over=over,
        over_share=over / len(counted) if counted else 0.0,
        over_ci95=share_interval(over / len(counted), len(counted)) if counted else None,
        in_prompts=means[IN_PROMPTS],
        in_answers=means[IN_ANSWERS],
        share=means[2],
        exact=sum(bool(unit.exact) for unit in units),
        near=None if near_of is None else near,
        flagged=flagged,
    )


def _shares(index: NgramIndex, grams: np.ndarray) -> np.ndarray:
    """Shares of the n-grams in training prompts, in answers, in either; (3,), zeros where there is none."""
    if not len(grams):
        return np.zeros(3)
    has = index.counts[grams] > 0
    return np.array([*has.mean(axis=0), has.any(axis=1).mean()])


def _flag(
    unit: _Unit,
    grams: np.ndarray,
    share: np.ndarray,
    close: tuple[str, float] | None,
    index: NgramIndex,
    names: Sequence[str],
) -> Flagged:
    shared: Counter[int] = Counter()
    for gram in grams.tolist():
        shared.update({row for side in (IN_PROMPTS, IN_ANSWERS) for row in index.rows(gram, side)})
    best = sorted(shared.items(), key=lambda item: (-item[1], item[0]))[:NAMED]
    in_prompts, in_answers, either = share.tolist()
    return Flagged(
        unit.row.id,
        unit.part,
        text=_text(unit.row, unit.part),
        ngrams=len(grams),
        in_prompts=in_prompts,
        in_answers=in_answers,
        share=either,
        exact=[names[row] for row in unit.exact],
        near=close,
        rows=[Found(names[row], count) for row, count in best],
    )


def embedded(
    train: Iterable[Row],
    evaluations: Mapping[str, Sequence[Row]],
    model: str,
    embed: Callable[[Sequence[str]], np.ndarray],
    threshold: float = 0.9,
) -> dict[str, Embedded]:
    """The training prompt most like each evaluation prompt, by `embed`: n texts -> (n, d). Training rows stream by."""
    rows = [row for chosen in evaluations.values() for row in chosen]
    names: list[str] = []

    def batches() -> Iterator[tuple[Sequence[int], np.ndarray]]:
        for batch in _batches(train, BATCH):
            places = range(len(names), len(names) + len(batch))
            names.extend(row.id for row in batch)
            yield places, embed([_text(row, "prompt") for row in batch])

    cosines, found = nearest_vectors(embed([_text(row, "prompt") for row in rows]), batches())
    result, start = {}, 0
    for name, chosen in evaluations.items():
        own = slice(start, start + len(chosen))
        start += len(chosen)
        pairs = zip(chosen, found[own].tolist(), cosines[own].tolist(), strict=True)
        best = sorted(((row.id, names[at], value) for row, at, value in pairs if at >= 0), key=lambda one: -one[2])
        median = float(np.median(cosines[own])) if len(chosen) else math.nan
        result[name] = Embedded(model, median, sum(value >= threshold for *_, value in best), threshold, best[:20])
    return result


def content(found: Contamination) -> str:
    """The report as a JSON document."""
    return json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n"
