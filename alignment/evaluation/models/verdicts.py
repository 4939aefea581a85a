"""What rewards and judges said, kept row by row in JSON lines: nothing is asked twice, and nothing said is lost.

A row is found again by what was asked (prompt, texts, context) and by whom, not by where it stood. So models, prompts
and scores may be added to an evaluation, and one that was stopped goes on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignment.errors import Interrupted, UserError
from alignment.evaluation.files import json_lines
from alignment.evaluation.models.opinions import Opinion
from alignment.evaluation.models.prompts import PromptSet, digest
from alignment.evaluation.models.sampled import slug
from alignment.feedback.adapters import as_judge, as_reward, label
from alignment.feedback.label import identity_of
from alignment.feedback.ranks import over_ranks
from alignment.resumable import OneProcess

BATCH_SIZE = 32  # rows asked about, and written, at once


class Question(NamedTuple):
    """A prompt by its number, and the one or two answers that are asked about."""

    prompt: int
    texts: tuple[str, ...]
    models: tuple[str, ...]  # whose they are, for a reader of the file


class VerdictFile:
    """The verdicts of one feedback on any questions.

    "No verdict" is written, counts as none, and is asked again by the next run. What fails is kept in `failure`: the
    rest of its questions then have no verdict, and everything else goes on.

    Raises:
        UserError: feedback whose settings have no plain form, so that its verdicts could not be told from another's.
    """

    def __init__(self, opinion: Opinion, asked: PromptSet, folder: Path, processes: OneProcess | None = None) -> None:
        self.name, self.feedback, self.asked = opinion.name, opinion.feedback, asked
        self.processes = processes or OneProcess()
        identity = identity_of(self.feedback)
        if identity is None:
            raise UserError(
                f"{opinion.option} {opinion.name}: what its verdicts depend on has no plain form"
                "\nMend: give the class a method identity() that returns it"
            )
        asked_as = opinion.in_one_order if opinion.compares else self.feedback
        self.shared = over_ranks(asked_as) if self.processes.size > 1 else asked_as
        self.path = folder / "verdicts" / f"{slug(label(self.feedback))}-{identity}.jsonl"
        self.failure: str | None = None
        self.known: dict[str, float] = self.processes.on_first(self._open)

    def scores(self, questions: Sequence[Question]) -> list[float]:
        """The score of each answer; NaN is no verdict."""
        reward = as_reward(self.shared)

        def call(prompts: Any, columns: Any, contexts: Any) -> list[float]:
            return [float(value) for value in reward.score(prompts, columns[0], contexts)]

        return self._ask("score", questions, call)

    def preferences(self, questions: Sequence[Question]) -> list[float]:
        """P(first ≻ second) of each two answers in this order; NaN is no verdict."""
        judge = as_judge(self.shared)

        def call(prompts: Any, columns: Any, contexts: Any) -> list[float]:
            first, second = columns
            found = [float(value) for value in judge.prefer(prompts, first, second, contexts)]
            wrong = [value for value in found if not (0 <= value <= 1 or math.isnan(value))]
            if wrong:
                raise UserError(f"{self.name} gave P(first better) = {wrong[0]}, which is not in [0, 1]")
            return found

        return self._ask("prefer", questions, call)

    def _ask(self, way: str, questions: Sequence[Question], call: Callable[..., list[float]]) -> list[float]:
        keys = [
            digest(way, self.asked.keys[each.prompt], each.texts, self.asked.contexts[each.prompt])
            for each in questions
        ]
        todo = {key: each for key, each in zip(keys, questions, strict=True) if key not in self.known}
        if todo and self.failure is None:
            self._ask_new(list(todo.items()), call)
        return [self.known.get(key, math.nan) for key in keys]

    def _ask_new(self, todo: Sequence[tuple[str, Question]], call: Callable[..., list[float]]) -> None:
        with self.processes.progress(f"asking {self.name}", 0, len(todo)) as advance:
            for start in range(0, len(todo), BATCH_SIZE):
                batch = todo[start : start + BATCH_SIZE]
                columns = list(zip(*(each.texts for _, each in batch), strict=True))
                try:
                    found = call(
                        [self.asked.prompts[each.prompt] for _, each in batch],
                        columns,
                        [self.asked.contexts[each.prompt] for _, each in batch],
                    )
                    rows = list(zip(batch, found, strict=True))
                except Interrupted:
                    raise
                except Exception as error:  # one of several: what the others say is worth having
                    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                    self.failure = " ".join(reason.split())[:300]
                    return
                self._add(rows)
                advance(len(batch))
                self.processes.after_batch()

    def _add(self, rows: Sequence[tuple[tuple[str, Question], float]]) -> None:
        self.known.update({key: value for (key, _), value in rows if math.isfinite(value)})
        if self.processes.rank:
            return
        lines = []
        for (key, each), value in rows:
            known = value if math.isfinite(value) else None
            row = {"key": key, "prompt": each.prompt, "models": each.models, "value": known}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        try:
            with self.path.open("ab") as file:
                file.write("".join(lines).encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _open(self) -> dict[str, float]:
        """The verdicts that are there, behind a whole last line."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                end = file.seek(0, os.SEEK_END)
                if end:
                    file.seek(end - 1)
                    if file.read() != b"\n":  # a kill in the middle of a line: it is passed over, and must end
                        file.write(b"\n")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error
        rows = [row for row in json_lines(self.path) if isinstance(row.get("value"), int | float)]
        return {str(row.get("key")): float(row["value"]) for row in rows}
