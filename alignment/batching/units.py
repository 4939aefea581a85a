"""Pairs or single answers -> units of token ids, with what was cut or left out counted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.batching.groups import Group, Unit
from alignment.config import DataConfig
from alignment.data.example import Message
from alignment.data.templates import encode_pair, encode_prompt
from alignment.data.views import Pair, Unpaired
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

    def as_dict(self) -> dict[str, int]:
        return {
            self.kind: self.kept,
            "truncated": self.truncated,
            "prompt_too_long": len(self.prompt_too_long),
            "same_after_cut": len(self.same_after_cut),
            "turns_in_answer": len(self.turns_in_answer),
        }


def pair_units(pairs: Sequence[Pair], tokenizer: Any, data: DataConfig) -> tuple[list[Unit], TokenCounts]:
    """One unit a pair: a group of the prompt with (chosen, rejected).

    Raises:
        UserError: a prompt over the limit with on_bad_row=stop, or no pair left.
    """
    units, counts = [], TokenCounts("pairs")
    for pair in pairs:
        group = _group(pair.id, pair.prompt, (pair.chosen, pair.rejected), tokenizer, data, counts)
        if group is None:
            continue
        if group.completions[0] == group.completions[1]:
            counts.same_after_cut.append(pair.id)
            continue
        units.append(Unit(pair.id, (group,), {"p_chosen": pair.p_chosen}))
    return _checked(units, len(pairs), data, counts)


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
        group = _group(answer.id, answer.prompt, (answer.completion,), tokenizer, data, counts)
        if group is not None:
            found.append((answer, group))
    groups = [group for _, group in found]
    foreign = _foreign(groups, seed)
    units = [
        Unit(answer.id, (group,), {"desirable": float(answer.desirable)}, (Group(group.prompt, other.completions),))
        for (answer, group), other in zip(found, foreign, strict=True)
    ]
    return _checked(units, len(answers), data, counts)


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


def _group(
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
    encoded = [encode_pair(tokenizer, prompt, answer, data.template) for answer in answers]
    ids = encoded[0][0]
    if len(ids) > data.max_prompt_length:
        if data.on_bad_row == "stop":
            raise UserError(
                f"the prompt of {name} has {len(ids)} tokens, data.max_prompt_length is {data.max_prompt_length}:"
                " raise it, or data.on_bad_row=skip"
            )
        counts.prompt_too_long.append(name)
        return None
    limit = data.max_completion_length
    counts.truncated += any(len(completion) > limit for _, completion in encoded)
    return Group(tuple(ids), tuple(tuple(completion[:limit]) for _, completion in encoded))


def _checked(units: list[Unit], given: int, data: DataConfig, counts: TokenCounts) -> tuple[list[Unit], TokenCounts]:
    counts.kept = len(units)
    if not units:
        raise UserError(
            f"no {counts.kind.rstrip('s')} is left of {given}: {len(counts.prompt_too_long)} prompts over "
            f"data.max_prompt_length={data.max_prompt_length}, {len(counts.same_after_cut)} equal within "
            f"data.max_completion_length={data.max_completion_length}, {len(counts.turns_in_answer)} with a user's "
            "turn in the answer"
        )
    return units, counts


def prompt_ids(prompts: Sequence[list], tokenizer: Any, data: DataConfig) -> list[list[int]]:
    """Token ids of each prompt, ready to be answered."""
    return [encode_prompt(tokenizer, prompt, data.template) for prompt in prompts]
