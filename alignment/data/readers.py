"""Raw rows -> examples: every source, every format, with a count of what was left out and why."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.data.example import Example, content_id
from alignment.data.examples import Examples
from alignment.data.formats.common import Kind, RowError
from alignment.data.formats.registry import BY_NAME, Format, choose, parse_row
from alignment.data.sources import Source, resolve
from alignment.errors import UserError, unknown


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: where it stands, and why. `row` is a line of JSON Lines, else a row; the first is 1."""

    file: str
    row: int
    reason: str
    kind: Kind = "other"

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.reason}"


@dataclass
class LoadReport:
    """What became of the rows: rows_read = kept + len(skipped). One row may hold several examples (a tree)."""

    rows_read: int = 0
    kept: int = 0
    examples: int = 0
    skipped: list[BadRow] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)  # rows kept, by format
    sampled_out: int = 0  # examples left out by `limit` or by the weights of a mixture
    left_out: dict[str, int] = field(default_factory=dict)  # by a view, if one was taken: why, and how many

    @property
    def reasons(self) -> Counter[str]:
        """Rows skipped, by reason; the numbers and names inside a reason are kept."""
        return Counter(bad.reason for bad in self.skipped)

    def summary(self) -> str:
        """One line: rows read, kept and skipped, the formats, and the commonest reasons."""
        parts = [f"{self.rows_read} rows read, {self.kept} kept, {len(self.skipped)} skipped"]
        if self.examples != self.kept:
            parts.append(f"{self.examples} examples")
        if self.formats:
            parts.append("formats: " + ", ".join(f"{name} {count}" for name, count in self.formats.most_common()))
        if self.skipped:
            shown = [f"{count} × {why}" for why, count in self.reasons.most_common(5)]
            more = len(self.reasons) - len(shown)
            parts.append("skipped: " + "; ".join(shown) + (f"; and {more} more reasons" if more else ""))
        if self.sampled_out:
            parts.append(f"{self.sampled_out} examples left out by sampling")
        if self.left_out:
            parts.append("left out: " + ", ".join(f"{count} × {why}" for why, count in self.left_out.items()))
        return " | ".join(parts)

    def add(self, other: LoadReport) -> None:
        """Count another source's rows in."""
        self.rows_read += other.rows_read
        self.kept += other.kept
        self.examples += other.examples
        self.skipped += other.skipped
        self.formats += other.formats
        self.sampled_out += other.sampled_out


class NoUsableRows(UserError):
    """Rows were read, and none could be used. `report` says why for each."""

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass
class Loaded:
    """Examples, and the report on how they were read."""

    examples: Examples
    report: LoadReport


def load_examples(
    path: str | Path | Sequence[str] | Mapping[str, float],
    *,
    format: str = "auto",
    split: str = "train",
    on_bad_row: str = "skip",
    limit: int | None = None,
    seed: int = 0,
) -> Loaded:
    """Read preference data from wherever it is, in whatever known format, decided per row.

    Args:
        path: a file, folder, glob, built-in set or hub id; a list of them; or {path: weight}, which mixes them.
        format: "auto", or the one format that every row must be in: its name, or one's own file (`my_format.py`).
        split: of a folder, built-in set, hub id, or JSON object of splits.
        on_bad_row: "skip" counts and lists a row that cannot be used; "stop" ends at the first.
        limit: at most so many examples, sampled with `seed`, in their order.
        seed: of the mixture and of `limit`.

    Raises:
        UserError: nothing there, nothing usable, or a bad row with on_bad_row="stop".
    """
    formats = choose(format)
    if on_bad_row not in ("skip", "stop"):
        raise unknown("on_bad_row", on_bad_row, ("skip", "stop"))
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: must be at least 1")
    if isinstance(path, Mapping):
        loaded = _mixture(path, formats, split, on_bad_row, seed)
    else:
        paths = [str(path)] if isinstance(path, str | Path) else [str(item) for item in path]
        loaded = _load(paths, formats, split, on_bad_row)
    if limit is not None and len(loaded.examples) > limit:
        kept = sorted(random.Random(seed).sample(range(len(loaded.examples)), limit))
        loaded.report.sampled_out += len(loaded.examples) - limit
        loaded = Loaded(loaded.examples.select(kept), loaded.report)
    return loaded


def _load(paths: Sequence[str], formats: Sequence[Format], split: str, on_bad_row: str) -> Loaded:
    if not paths:
        raise UserError("no data: the list of paths is empty")
    sources = [source for path in paths for source in resolve(path, split)]
    report = LoadReport()
    try:
        examples = Examples.write(read_examples(sources, formats, on_bad_row, report))
    except OSError as error:
        raise UserError(
            f"cannot write the rows to the folder for temporary files, {tempfile.gettempdir()}: "
            f"{error.strerror or error}; set TMPDIR to another one"
        ) from error
    name = ", ".join(paths)
    if report.rows_read == 0:
        raise UserError(f"{name}: there are no rows in it")
    if report.kept == 0:
        raise NoUsableRows(_nothing_usable(name, formats, report), report)
    return Loaded(examples, report)


def read_examples(
    sources: Sequence[Source], formats: Sequence[Format], on_bad_row: str, report: LoadReport
) -> Iterator[Example]:
    """The examples of all rows, one after the other, their place in `meta`; `report` says what became of the rows."""
    for source in sources:
        for row, value in source.rows:
            report.rows_read += 1
            try:
                if isinstance(value, RowError):
                    raise value
                found_format, found = parse_row(value, formats)
                for example in found:
                    example.meta = _located(example, source.name, row)
            except RowError as error:
                bad = BadRow(source.name, row, error.reason, error.kind)
                if on_bad_row == "stop":
                    raise UserError(f"{bad} (data.on_bad_row=skip leaves such rows out)") from error
                report.skipped.append(bad)
                continue
            except UserError as error:  # a format of one's own, and a mistake in it
                raise UserError(f"{source.name}:{row}: {error}") from error
            report.kept += 1
            report.examples += len(found)
            report.formats[found_format] += 1
            yield from found


def _located(example: Example, source: str, row: int) -> dict[str, Any]:
    """The example's meta with its id and place; a converted record keeps the place that it came from as `origin`."""
    meta = dict(example.meta)
    if "source" in meta:
        meta.setdefault("origin", {"source": meta["source"], "row": meta.get("row")})
    try:
        for response in example.responses:
            written = [part for judgment in response.judgments for part in (judgment.text, judgment.annotator)]
            "".join(part for part in (response.source, *written) if part).encode("utf-8")
        return {**meta, "id": content_id(example), "source": source, "row": row}
    except UnicodeEncodeError as error:
        raise RowError("holds half a surrogate pair, which is no text") from error


def _nothing_usable(name: str, formats: Sequence[Format], report: LoadReport) -> str:
    reasons = report.reasons
    if all(bad.kind == "unknown format" for bad in report.skipped):
        first = report.skipped[0]
        known = f"Known formats: {', '.join(BY_NAME)}"
        if len(formats) == 1:
            known = f"That format is {formats[0].DESCRIPTION}"
        return f"{name}: unknown data format: row {first.row} is {first.reason}.\n{known}"
    (reason, count), *_ = reasons.most_common(1)
    return f"{name}: none of {report.rows_read} rows can be used; {count} × {reason}"


def _mixture(weights: Mapping[str, float], formats: Sequence[Format], split: str, on_bad_row: str, seed: int) -> Loaded:
    """As many examples as the weights allow without taking one twice, shuffled together with the seed."""
    import datasets

    if not weights:
        raise UserError("no data: the mixture is empty")
    for path, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise UserError(f"the weight of {path} is {weight}: it must be a number above 0")
    total = sum(weights.values())
    parts = [_load([str(path)], formats, split, on_bad_row) for path in weights]
    shares = [weight / total for weight in weights.values()]
    size = min(len(part.examples) / share for part, share in zip(parts, shares, strict=True))
    report, chosen = LoadReport(), []
    for index, (part, share) in enumerate(zip(parts, shares, strict=True)):
        count = min(len(part.examples), max(1, round(size * share)))
        part.report.sampled_out = len(part.examples) - count
        order = random.Random(f"{seed}-{index}").sample(range(len(part.examples)), count)
        chosen.append(part.examples.select(order).dataset)
        report.add(part.report)
    return Loaded(Examples(datasets.concatenate_datasets(chosen)).shuffle(seed), report)
