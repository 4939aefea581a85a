"""Feedback over all processes of a launch: each does its share, all get all, in order."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from alignment.data.example import Judgment
from alignment.errors import UserError
from alignment.feedback.adapters import as_feedback, close, counts_of, inside, label
from alignment.feedback.protocols import Context, Prompts
from alignment.feedback.wrappers import METHODS, offer

ROWS_AT_ONCE = 1024  # of each process, between two exchanges


def over_ranks(feedback: Any) -> Any:
    """`feedback`, asked by every process of an `accelerate launch` for its share of the rows.

    All processes must call it with the same rows, and get the same list as one process would. Where something looks
    at the rows of a call together (`mean_win`), or has `parts` (`sum`), what is inside it is shared out instead. An
    error on one process ends the call on all. On one process it is the plain call.
    """
    together = any(getattr(part, "rows_together", False) for part in inside(as_feedback(feedback)))
    if not together and not (hasattr(feedback, "parts") and dataclasses.is_dataclass(feedback)):
        return OverRanks(feedback)
    names = [f.name for f in dataclasses.fields(feedback) if f.init]
    return dataclasses.replace(feedback, **{name: _shared(getattr(feedback, name)) for name in names})


def _shared(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_shared(item) for item in value]
    return over_ranks(value) if any(hasattr(value, method) for method in METHODS) else value


class OverRanks:
    """What `over_ranks` makes; `counts` are those of all processes together."""

    def __init__(self, feedback: Any, rows_at_once: int = ROWS_AT_ONCE) -> None:
        self.of, self.rows_at_once = feedback, rows_at_once
        self.counts: Counter[str] = Counter()
        self.label = label(feedback)
        offer(self, feedback)

    def _score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        return self._shared_out("score", [prompts, completions], context)

    def _prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        return self._shared_out("prefer", [prompts, first, second], context)

    def _review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]:
        return self._shared_out("review", [prompts, completions], context)

    def _shared_out(self, method: str, columns: list[Sequence[Any]], context: Context) -> list[Any]:
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())
        ranks, total = state.num_processes, len(columns[0])
        found: list[Any] = []
        for start in range(0, total, self.rows_at_once * ranks):
            mine = range(start + state.process_index, min(start + self.rows_at_once * ranks, total), ranks)
            shares = self._exchanged(method, columns, context, mine, ranks)
            found += [shares[row % ranks][row // ranks] for row in range(min(self.rows_at_once * ranks, total - start))]
        return found

    def _exchanged(
        self, method: str, columns: list[Sequence[Any]], context: Context, rows: range, ranks: int
    ) -> list[list[Any]]:
        """What every process found for its rows, by rank."""
        before, values, problem = counts_of(self.of), [], None
        try:
            if rows:
                chosen = [[column[row] for row in rows] for column in columns]
                part = None if context is None else [context[row] for row in rows]
                values = list(getattr(self.of, method)(*chosen, part))
        except Exception as error:
            if ranks == 1:
                raise
            problem = error
        counted = counts_of(self.of)
        counted.subtract(before)
        told = (values, counted, None if problem is None else (isinstance(problem, UserError), str(problem)))
        all_told = [told]
        if ranks > 1:
            from accelerate.utils import gather_object

            all_told = gather_object([told])
        if problem is not None and not isinstance(problem, UserError):
            raise problem
        for rank, (_, _, said) in enumerate(all_told):
            if said is not None:
                raise UserError(said[1]) if said[0] else RuntimeError(f"feedback failed on process {rank}: {said[1]}")
        for _, counts, _ in all_told:
            self.counts.update(counts)
        return [share for share, _, _ in all_told]

    def close(self) -> None:
        """Close what is inside."""
        close(self.of)
