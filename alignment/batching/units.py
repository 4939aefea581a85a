"""Pairs or single answers -> units of token ids, with what was cut or left out counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any

from alignment.batching.groups import Group, Unit
from alignment.config import DataConfig
from alignment.data.example import Message
from alignment.data.templates import encode_answers, encode_prompt
from alignment.data.views import Demonstration, Pair, Prompt, Unpaired
from alignment.errors import UserError


@dataclass
class TokenCounts:
    """What became of the pairs, or of the single answers, on their way to token ids."""

    kind: str  # pairs | answers
    kept: int = 0
    truncated: int = 0  # with a completion cut at the limit
    same_after_cut: list[str] = field(default_factory=list)  # ids: equal once cut, so nothing tells them apart
    prompt_too_long: list[str] = field(default_factory=list)
    turns_in_answer: list[str] = field(default_factory=list)  # ids: a user's turn stands in an answer
    empty: list[str] = field(default_factory=list)  # ids: a prompt that asks nothing
    judgment_too_long: list[str] = field(default_factory=list)  # ids: the prompt fits, with its judgment it does not
    references_cut: int = 0  # answers to be improved that were cut, and marked, in their prompt
    judged_part_cut: list[str] = field(default_factory=list)  # ids: what the judgment is about lies behind the cut

    def add(self, other: TokenCounts) -> None:
        """Count another piece of the same data in."""
        for each in fields(self):
            if each.name != "kind":
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def as_dict(self) -> dict[str, int]:
        more = {name: len(getattr(self, name)) for name in ("empty", "judgment_too_long", "judged_part_cut")}
        more["references_cut"] = self.references_cut
        return {
            self.kind: self.kept,
            "truncated": self.truncated,
            "prompt_too_long": len(self.prompt_too_long),
            "same_after_cut": len(self.same_after_cut),
            "turns_in_answer": len(self.turns_in_answer),
            **{reason: count for reason, count in more.items() if count},
        }


class NothingLeft(UserError):
    """No unit is left; `counts` says why."""

    def __init__(self, message: str, counts: TokenCounts) -> None:
        super().__init__(message)
        self.counts = counts


def pair_units(
    pairs: Sequence[Pair], tokenizer: Any, data: DataConfig, objectives: Sequence[str] = ()
) -> tuple[list[Unit], TokenCounts]:
    """One unit a pair: a group of the prompt with (chosen, rejected).

    With `objectives`, `values["objective"]` is the place of the pair's own among them.

    Raises:
        UserError: a prompt over the limit with on_bad_row=stop, no pair left, or a pair of no known objective.
    """
    units, counts = [], TokenCounts("pairs")
    for pair in pairs:
        group = encode_group(pair.id, pair.prompt, (pair.chosen, pair.rejected), tokenizer, data, counts)
        if group is None:
            continue
        if group.completions[0] == group.completions[1]:
            counts.same_after_cut.append(pair.id)
            continue
        values = {"p_chosen": pair.p_chosen}
        if pair.margin is not None:
            values["margin"] = pair.margin
        if objectives:
            values["objective"] = _objective(pair, objectives)
        units.append(Unit(pair.id, (group,), values))
    return checked(units, len(pairs), data, counts), counts


def _objective(pair: Pair, objectives: Sequence[str]) -> float:
    """Which of `objectives` the pair names, or the file that it comes from."""
    named = pair.objective or ""
    parts = (named, *PurePath(named).with_suffix("").parts) if named else ()
    place = next((place for place, name in enumerate(objectives) if name in parts), None)
    if place is None:
        raise UserError(
            f"{pair.id} is of the objective '{named}', and model.objectives are {', '.join(objectives)}: "
            "name files or meta.objective of the examples so"
        )
    return float(place)


SEPARATOR = "\nAnother answer:\n"  # between two answers in one context


# Which two answers of a pair stand in one context, one behind the other: 0 is the chosen one, 1 the rejected one.
BOTH_ORDERS = ((0, 1), (1, 0))
FOUR_ORDERINGS = ((1, 0), (0, 0), (1, 1), (0, 1))  # (reference, candidate) of wl, ww, ll and lw, as in losses/gap.py


def ordered_units(
    pairs: Sequence[Pair], tokenizer: Any, data: DataConfig, orders: Sequence[tuple[int, int]] = BOTH_ORDERS
) -> tuple[list[Unit], TokenCounts]:
    """One unit a pair for a model that reads two answers in one context: the prompt with the `orders` of them.

    The completions are `first SEPARATOR second`, one for each order.
    """
    units, counts = pair_units(pairs, tokenizer, data)
    between, ordered = separator(tokenizer), []
    for unit in units:
        chosen, rejected = unit.groups[0].completions
        values = {**unit.values, "longer": float(len(chosen) - len(rejected))}
        ordered.append(replace(unit, groups=(joined(unit.groups[0], between, orders),), values=values))
    return ordered, counts


def gap_units(pairs: Sequence[Pair], tokenizer: Any, data: DataConfig) -> tuple[list[Unit], TokenCounts]:
    """One unit a pair for a model that scores a candidate against a reference: the prompt with all four orderings.

    The completions are `reference SEPARATOR candidate`.
    """
    return ordered_units(pairs, tokenizer, data, FOUR_ORDERINGS)


def separator(tokenizer: Any) -> tuple[int, ...]:
    """The token ids that stand between two answers in one context."""
    return tuple(tokenizer(SEPARATOR, add_special_tokens=False)["input_ids"])


def joined(group: Group, between: tuple[int, ...], orders: Sequence[tuple[int, int]]) -> Group:
    """The same prompt with two of its completions, one behind the other, for each order (first, second)."""
    answers = group.completions
    return Group(group.prompt, tuple(answers[first] + between + answers[second] for first, second in orders))


def demonstration_units(
    answers: Sequence[Demonstration], tokenizer: Any, data: DataConfig
) -> tuple[list[Unit], TokenCounts]:
    """One unit an answer to imitate: a group of one completion. Raises UserError as `pair_units`."""
    units, counts = [], TokenCounts("answers")
    for answer in answers:
        group = encode_group(answer.id, answer.prompt, (answer.completion,), tokenizer, data, counts)
        if group is not None:
            units.append(Unit(answer.id, (group,)))
    return checked(units, len(answers), data, counts), counts


def prompt_units(prompts: Sequence[Prompt], tokenizer: Any, data: DataConfig) -> tuple[list[Unit], TokenCounts]:
    """One unit a prompt, its completion still to be sampled: the end token stands in for it. UserError as `pair_units`.

    A prompt whose last turn says nothing is left out, and counted.
    """
    units, counts = [], TokenCounts("prompts")
    for prompt in prompts:
        if not prompt.messages or not prompt.messages[-1]["content"].strip():
            counts.empty.append(prompt.id)
            continue
        ids = encode_prompt(tokenizer, prompt.messages, data.template)
        if not _too_long(prompt.id, ids, data, counts):
            units.append(Unit(prompt.id, (Group(tuple(ids), ((tokenizer.eos_token_id,),)),)))
    return checked(units, len(prompts), data, counts), counts


def answer_units(
    answers: Sequence[Unpaired], tokenizer: Any, data: DataConfig, seed: int
) -> tuple[list[Unit], TokenCounts]:
    """One unit an answer, and aside the same prompt with an answer to another one, for KTO's KL.

    The foreign answer is drawn once with `seed`, so it is the same on any number of processes and in any epoch. Where
    all answers have one prompt, it is another answer to that.

    Raises:
        UserError: as `pair_units`.
    """
    found, counts = [], TokenCounts("answers")
    for answer in answers:
        group = encode_group(answer.id, answer.prompt, (answer.completion,), tokenizer, data, counts)
        if group is not None:
            found.append((answer, group))
    groups = [group for _, group in found]
    foreign = _foreign(groups, seed)
    units = [
        Unit(answer.id, (group,), {"desirable": float(answer.desirable)}, (Group(group.prompt, other.completions),))
        for (answer, group), other in zip(found, foreign, strict=True)
    ]
    return checked(units, len(answers), data, counts), counts


def _foreign(groups: Sequence[Group], seed: int) -> list[Group]:
    """For each group the next one of a seeded order that has another prompt, or at least is another one."""
    order = random.Random(seed).sample(range(len(groups)), len(groups))
    count, alike = len(groups), len({group.prompt for group in groups}) < 2
    partners = list(groups)
    for place, index in enumerate(order):
        for step in range(1, count):
            partners[index] = groups[order[(place + step) % count]]
            if alike or partners[index].prompt != groups[index].prompt:
                break
    return partners


def encode_group(
    name: str,
    prompt: list[Message],
    answers: Sequence[list[Message]],
    tokenizer: Any,
    data: DataConfig,
    counts: TokenCounts,
) -> Group | None:
    """The prompt with its answers as token ids, cut at the limit; None where it is left out, which is counted."""
    if any(message["role"] == "user" for answer in answers for message in answer):
        counts.turns_in_answer.append(name)  # its tokens would be trained as if the model should say them
        return None
    ids, encoded = encode_answers(tokenizer, prompt, answers, data.template)
    if _too_long(name, ids, data, counts):
        return None
    limit = data.max_completion_length
    counts.truncated += any(len(completion) > limit for completion in encoded)
    return Group(tuple(ids), tuple(tuple(completion[:limit]) for completion in encoded))


def _too_long(name: str, ids: Sequence[int], data: DataConfig, counts: TokenCounts) -> bool:
    if len(ids) <= data.max_prompt_length:
        return False
    if data.on_bad_row == "stop":
        raise UserError(
            f"the prompt of {name} has {len(ids)} tokens, data.max_prompt_length is {data.max_prompt_length}:"
            " raise it, or data.on_bad_row=skip"
        )
    counts.prompt_too_long.append(name)
    return True


def checked(units: list[Unit], given: int, data: DataConfig, counts: TokenCounts) -> list[Unit]:
    """`units`, counted as kept. Raises NothingLeft where of the `given` ones none is left."""
    counts.kept = len(units)
    if not units:
        judgments, behind = len(counts.judgment_too_long), len(counts.judged_part_cut)
        raise NothingLeft(
            f"no {counts.kind.rstrip('s')} is left of {given}: "
            f"{len(counts.prompt_too_long)} prompts{f', and {judgments} with a judgment,' if judgments else ''} over "
            f"data.max_prompt_length={data.max_prompt_length}, {len(counts.same_after_cut)} equal "
            f"{f'and {behind} with what is judged cut off ' if behind else ''}within "
            f"data.max_completion_length={data.max_completion_length}, {len(counts.turns_in_answer)} with a user's "
            "turn in the answer",
            counts,
        )
    return units


def prompt_ids(prompts: Sequence[list], tokenizer: Any, data: DataConfig) -> list[list[int]]:
    """Token ids of each prompt, ready to be answered."""
    return [encode_prompt(tokenizer, prompt, data.template) for prompt in prompts]
