"""Training units read on the way, from sources larger than the disk or from the hub: memory holds one block of them.

The stream is read in blocks of `data.shuffle_buffer` units, and each block is shuffled whole with the seed and its
number. So where a run stands is four numbers, and a resumed run reads its block again: the same units in the same
order, whatever the number of processes. Behind the last row the first one follows.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch.utils.data import DataLoader

from alignment.batching.groups import Unit
from alignment.batching.steps import balanced
from alignment.batching.stored import lengths_of
from alignment.batching.units import NothingLeft
from alignment.config import RunConfig
from alignment.data.example import Example
from alignment.data.formats.registry import choose
from alignment.data.readers import LoadReport, read_examples
from alignment.data.sources import Source, resolve
from alignment.data.viewed import prompt_hash
from alignment.errors import UserError
from alignment.trainers.parts import in_part

STREAM = "stream.json"  # in a checkpoint


@dataclass(frozen=True)
class Position:
    """Where a stream stands: the block that begins behind row `row` of the `source`-th source, in its `turn`-th pass.

    `place` units of the block are taken; `digest` is theirs, to tell a changed source.
    """

    turn: int = 0
    source: int = 0
    row: int = 0
    block: int = 0
    place: int = 0
    digest: str = ""


class UnitStream:
    """Endless units of config.data, in seeded order, from `position` on.

    Args:
        paths: the sources, one after the other.
        view: how examples are read (`by_example`), and become units.
        counts: what became of rows and records is counted here, as it is read.

    Raises:
        UserError: a pass over all sources gives no unit.
    """

    def __init__(
        self, paths: Sequence[str], config: RunConfig, tokenizer: Any, view: Any, counts: dict[str, Any]
    ) -> None:
        self.paths, self.config, self.tokenizer, self.view, self.counts = paths, config, tokenizer, view, counts
        self.position = Position()
        self._steps = {0: self.position}  # where it stood before each of the last steps
        self._next_step = 0
        self._rows: Iterator[tuple[Position, list[Example]]] | None = None
        self._block: list[Unit] = []
        self._behind = self.position  # the block

    # -- steps -------------------------------------------------------------------------------------------------------

    def step(self, number: int, layout: str, rank: int, ranks: int) -> list[Unit]:
        """The units of one process for step `number`; steps are taken in turn, from where `go_to` went."""
        if number != self._next_step:
            raise RuntimeError(f"a stream stands at step {self._next_step}, and step {number} was asked for")
        units = [self.take() for _ in range(self.config.training.batch_size)]
        self._next_step = number + 1
        self._steps[self._next_step] = self.position
        self._steps.pop(number - 64, None)  # a loader is never so far ahead of the trainer
        return [units[place] for place in balanced(lengths_of(units, layout), ranks)[rank]]

    def loader(self, steps: int, layout: str, rank: int, ranks: int) -> DataLoader:
        """One process's units of each of `steps` steps; a step that is skipped is not read."""

        def collate(numbers: list[int]) -> dict[str, list[Unit]]:
            return {"units": self.step(numbers[0], layout, rank, ranks)}

        numbers: Any = range(steps)
        # Its own generator, for a seed that nothing reads: from the global one it would shift the model's dropout.
        generator = torch.Generator()
        batches = [[number] for number in numbers]
        return DataLoader(numbers, batch_sampler=batches, collate_fn=collate, generator=generator)

    def state(self, step: int) -> dict[str, Any]:
        """What `go_to` needs to go on behind `step` steps."""
        return {"step": step, **asdict(self._steps[step])}

    def go_to(self, state: dict[str, Any]) -> None:
        """Go on where `state` was noted.

        Raises:
            UserError: the rows that were read there are other ones now.
        """
        values = dict(state)
        self._next_step = values.pop("step")
        wanted = Position(**values)
        self.position = replace(wanted, place=0, digest="")
        self._rows, self._block = None, []
        while self.position.place < wanted.place:
            self.take()
        if self.position != wanted:
            raise UserError(
                f"the stream's rows behind row {wanted.row} of source {wanted.source + 1} are not those of the resumed "
                "run\nMend: resume with the same sources in the same order, or start a new run"
            )
        self._steps = {self._next_step: self.position}

    def digests(self) -> list[str]:
        """None: what was read is compared in `go_to`."""
        return []

    # -- units -------------------------------------------------------------------------------------------------------

    def take(self) -> Unit:
        """The next unit."""
        at = self.position
        if at.place == len(self._block):
            if self._block:
                at = replace(self._behind, block=at.block + 1)
            self._block, self._behind = self._read_block(at)
        unit = self._block[at.place]
        digest = hashlib.blake2b(at.digest.encode() + unit.digest(), digest_size=8).hexdigest()
        self.position = replace(at, place=at.place + 1, digest=digest)
        return unit

    def _read_block(self, start: Position) -> tuple[list[Unit], Position]:
        """(a block of units in their order, where the next begins). A row is in one block, a block in one pass."""
        if self._rows is None:
            self._rows = self._read(start)
        units: list[Unit] = []
        for behind, examples in self._rows:  # it has no end
            units += self._units(examples)
            if len(units) >= self.config.data.shuffle_buffer or (units and not examples):
                break
            if not units and behind.turn > start.turn + 1:
                raise UserError(f"no {self.view.noun} to train on in {', '.join(self.paths)}: {dict(self._counter())}")
        random.Random(f"{self.config.seed} {start.block}").shuffle(units)
        return units, behind

    def _counter(self) -> Counter[str]:
        return Counter({name: count for name, count in self.counts.items() if count})

    def _units(self, examples: list[Example]) -> list[Unit]:
        records, left_out = self.view.read(examples)
        part = self.config.data.part
        if part is not None:
            kept = [each for each in records if in_part(prompt_hash(each), part)]
            left_out = {**left_out, "other_parts": len(records) - len(kept)}
            records = kept
        self._count({f"left_out_{reason}": count for reason, count in left_out.items()})
        if not records:
            return []
        try:
            found, counts = self.view.units(records, self.tokenizer, self.config.data)
        except NothingLeft as nothing:  # of this row
            found, counts = [], nothing.counts
        self._count(counts.as_dict())
        return found

    def _count(self, more: dict[str, int]) -> None:
        for name, count in more.items():
            self.counts[name] = self.counts.get(name, 0) + count

    # -- rows --------------------------------------------------------------------------------------------------------

    def _read(self, start: Position) -> Iterator[tuple[Position, list[Example]]]:
        """(where the stream stands behind a row, the row's examples), from `start` on, without end."""
        data, turn, first, row = self.config.data, start.turn, start.source, start.row
        formats = choose(data.format)
        while True:
            sources = [source for path in self.paths for source in resolve(path, data.split, streaming=True)]
            for number in range(first, len(sources)):
                report = LoadReport()
                found = read_examples([_behind(sources[number], row)], formats, data.on_bad_row, report)
                for last, examples in groupby(found, key=lambda example: example.meta["row"]):
                    yield Position(turn, number, last), list(examples)
                    self._count({"rows": report.rows_read, "skipped": len(report.skipped)})
                    report.rows_read, report.skipped = 0, []
                row = 0
            turn, first = turn + 1, 0
            yield Position(turn), []  # so that a pass without a unit is seen


def _behind(source: Source, row: int) -> Source:
    return replace(source, rows=((number, value) for number, value in source.rows if number > row))


def streamed(config: RunConfig, tokenizer: Any, view: Any, counts: dict[str, Any]) -> UnitStream:
    """The stream of config.data.

    Raises:
        UserError: what needs the whole set is asked for, too.
    """
    data, paths = config.data, config.data.path
    if isinstance(paths, str):
        paths = [paths]
    mends = {
        f"{config.method} needs its whole set before the first step; leave it out": not view.by_example,
        "give training.max_steps: how many steps an epoch has is not known": config.training.max_steps is None,
        "give data.eval_path, or data.eval_fraction=0: which prompts are held out is drawn from the whole set": (
            data.eval_path is None and data.eval_fraction > 0
        ),
        "leave out data.limit, which is drawn from the whole set; training.max_steps ends a run": data.limit
        is not None,
        "reference.when=step is needed: precomputing scores the whole set": config.reference.when == "precompute",
        "give data.path as a path or a list of paths: weights are shares of whole sets": not isinstance(
            paths, list | tuple
        ),
        "data.path=- can be read only once; write it to a file": isinstance(paths, list) and "-" in paths,
    }
    for mend, wrong in mends.items():
        if wrong:
            raise UserError(f"data.streaming=true: {mend}")
    return UnitStream([str(path) for path in paths], config, tokenizer, view, counts)
