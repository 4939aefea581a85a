"""Answers improved over several rounds: y_{i+1} ~ improver(x, y_i), with a gap that says whether it got better.

    improved = given answers
    for each round:
        proposals = improver(prompts, improved)
        a proposal whose gap over the answer is below that of the answer over itself is not kept, and ends its row

The paper (2310.00898) gives no rule for when to stop; the one here is r(y_{i+1}, y_i) < r(y_i, y_i).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from alignment.data.example import Message
from alignment.errors import UserError, unknown
from alignment.feedback.protocols import Gap
from alignment.rollouts.sampler import Rollout

# stop: a row ends with the first round that is no better, and keeps the answer before it
# best: all rounds are made, each on the best answer so far
# last: all rounds are made, each on the last answer, and the last one is kept; the gap is only noted
RULES = ("stop", "best", "last")

# Why a row ended.
ROUNDS, WORSE, NO_VERDICT, EMPTY = "all rounds made", "gap no longer rises", "no verdict of the gap", "no text"
NO_ROOM, SATISFIED, UNCHANGED = "prompt too long", "nothing to improve", "the same answer again"
REASONS = (ROUNDS, WORSE, SATISFIED, UNCHANGED, EMPTY, NO_VERDICT, NO_ROOM)


@dataclass(frozen=True)
class Proposal:
    """What may become the next answer, and what it cost."""

    text: str
    drawn: int  # tokens sampled, those of critiques and of other candidates included
    read: int  # tokens of the prompts
    finished: bool = True  # False: cut at max_new_tokens
    reference_cut: bool = False  # the answer to improve was too long, and lost its end
    critique: str | None = None
    satisfied: bool = False  # the improver says that there is nothing to improve
    rollout: Rollout | None = None  # the tokens of `text`
    candidates: int = 1  # answers that it was picked from


class Proposer(Protocol):
    """A way to better answers: an improver, Self-Refine, sampling anew (proposers.py)."""

    @property
    def greedy(self) -> bool:
        """Whether the same prompt and answer always give the same proposal."""

    def propose(
        self, prompts: Sequence[list[Message]], answers: Sequence[str], seed: int, anew: bool = False
    ) -> list[Proposal | None]:
        """A proposal for each row; None where its prompt leaves no room for one.

        A row depends on its prompt, its answer and the seed alone. With `anew`, rows that are the same get different
        proposals, which then depend on how often the row stands before.
        """


@dataclass(frozen=True)
class Round:
    """One proposal, and what became of it."""

    proposal: Proposal
    kept: bool
    gap: float | None = None  # of the proposal over the answer; None: not asked, NaN: no verdict
    over_itself: float | None = None  # of the answer over itself: what the gap is compared with

    @property
    def text(self) -> str:
        return self.proposal.text


@dataclass(frozen=True)
class Improved:
    """An answer, the rounds it went through, and the answer that was kept."""

    original: str
    rounds: tuple[Round, ...]
    stopped: str  # one of REASONS

    @property
    def text(self) -> str:
        """The answer that was kept: of the last round that was, or the original."""
        return self.after(len(self.rounds))

    @property
    def kept(self) -> int | None:
        """The round (from 0) whose answer was kept; None: the original was."""
        return self._kept_after(len(self.rounds))

    def after(self, rounds: int) -> str:
        """The answer that was kept after so many rounds."""
        place = self._kept_after(rounds)
        return self.original if place is None else self.rounds[place].text

    def drawn(self, rounds: int | None = None) -> int:
        """Tokens sampled in the first `rounds` rounds, or in all."""
        return sum(each.proposal.drawn for each in self.rounds[:rounds])

    def read(self, rounds: int | None = None) -> int:
        """Tokens of the prompts of the first `rounds` rounds, or of all."""
        return sum(each.proposal.read for each in self.rounds[:rounds])

    def _kept_after(self, rounds: int) -> int | None:
        kept = [place for place, each in enumerate(self.rounds[:rounds]) if each.kept]
        return kept[-1] if kept else None


@dataclass
class _Row:
    prompt: list[Message]
    answer: str  # kept so far
    rounds: list[Round] = field(default_factory=list)
    stopped: str | None = None
    over_itself: float | None = None  # the gap of `answer` over itself, once it was asked for


def improve(
    prompts: Sequence[list[Message]],
    answers: Sequence[str],
    proposer: Proposer,
    gap: Gap | None = None,
    *,
    rounds: int = 1,
    rule: str | None = None,
    seed: int = 0,
    anew: bool = False,
) -> list[Improved]:
    """Each answer improved over at most `rounds` rounds.

    A proposal without text is never kept. Rows are independent of each other (with `anew`, but for equal rows).

    Args:
        prompts, answers: one of each a row. An empty answer asks the improver the plain question.
        gap: how much better a proposal is than the answer it was made from. None: nothing is compared.
        rule: of RULES; None: stop where there is a gap, else last.
        anew: as for `Proposer.propose`.

    Raises:
        UserError: an unknown rule, or one that needs a gap.
    """
    rule = check_rule(rule, gap is not None)
    rows = [_Row(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    for number in range(rounds):
        going = [row for row in rows if row.stopped is None]
        if not going:
            break
        own = random.Random(f"{seed}-{number}").getrandbits(32)
        proposals = proposer.propose([row.prompt for row in going], [row.answer for row in going], own, anew)
        gaps = _gaps(going, proposals, gap)
        for row, proposal, found in zip(going, proposals, gaps, strict=True):
            _take(row, proposal, found, rule, proposer.greedy)
    return [
        Improved(answer, tuple(row.rounds), row.stopped or ROUNDS) for row, answer in zip(rows, answers, strict=True)
    ]


def check_rule(rule: str | None, has_gap: bool) -> str:
    """The rule, or the default one. UserError: it is unknown, or needs a gap that is not there."""
    if rule is None:
        return "stop" if has_gap else "last"
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    if rule != "last" and not has_gap:
        raise UserError(f"rule={rule} needs a gap, which says what is better: give one, or rule=last")
    return rule


def _gaps(rows: Sequence[_Row], proposals: Sequence[Proposal | None], gap: Gap | None) -> list[float | None]:
    """The gap of each proposal over its row's answer; None where it is not asked for."""
    found: list[float | None] = [None] * len(rows)
    if gap is None:
        return found
    new = [
        (place, proposal.text)
        for place, proposal in enumerate(proposals)
        if proposal is not None and proposal.text and not proposal.satisfied
    ]
    base = [place for place, _ in new if rows[place].over_itself is None]  # one that is known needs no second pass
    places = [place for place, _ in new] + base
    candidates = [text for _, text in new] + [rows[place].answer for place in base]
    values = gap.gap([rows[i].prompt for i in places], candidates, [rows[i].answer for i in places]) if places else []
    for (place, _), value in zip(new, values[: len(new)], strict=True):
        found[place] = float(value)
    for place, value in zip(base, values[len(new) :], strict=True):
        rows[place].over_itself = float(value)
    return found


def _take(row: _Row, proposal: Proposal | None, gap: float | None, rule: str, greedy: bool) -> None:
    """Note the round, keep its answer or not, and end the row or not."""
    if proposal is None:
        row.stopped = NO_ROOM
        return
    reason = _against(row, proposal, gap, rule)
    row.rounds.append(Round(proposal, reason is None, gap, None if gap is None else row.over_itself))
    changed = reason is None and proposal.text != row.answer
    if changed:
        row.answer, row.over_itself = proposal.text, None
    if proposal.satisfied or (reason is not None and rule == "stop") or (greedy and not changed):
        row.stopped = reason or UNCHANGED  # greedily, the same again would be all that comes


def _against(row: _Row, proposal: Proposal, gap: float | None, rule: str) -> str | None:
    """Why the proposal is not kept; None where it is."""
    if proposal.satisfied:
        return SATISFIED
    if not proposal.text:
        return EMPTY
    if rule == "last" or proposal.text == row.answer:
        return None
    assert gap is not None and row.over_itself is not None
    if math.isnan(gap) or math.isnan(row.over_itself):
        return NO_VERDICT
    return WORSE if gap < row.over_itself else None
