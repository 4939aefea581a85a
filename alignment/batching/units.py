"""Pairs -> units of token ids, with what was cut or left out counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.batching.groups import Group, Unit
from alignment.config import DataConfig
from alignment.data.templates import encode_pair, encode_prompt
from alignment.data.views import Pair
from alignment.errors import UserError


@dataclass
class TokenCounts:
    """What became of the pairs on their way to token ids."""

    kept: int = 0
    truncated: int = 0  # pairs with a completion cut at the limit
    same_after_cut: list[str] = field(default_factory=list)  # ids: equal once cut, so nothing tells them apart
    prompt_too_long: list[str] = field(default_factory=list)
    turns_in_answer: list[str] = field(default_factory=list)  # ids: a user's turn stands in an answer

    def as_dict(self) -> dict[str, int]:
        return {
            "pairs": self.kept,
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
    units, counts = [], TokenCounts()
    for pair in pairs:
        if any(message["role"] == "user" for message in (*pair.chosen, *pair.rejected)):
            counts.turns_in_answer.append(pair.id)  # its tokens would be trained as if the model should say them
            continue
        prompt, chosen = encode_pair(tokenizer, pair.prompt, pair.chosen, data.template)
        _, rejected = encode_pair(tokenizer, pair.prompt, pair.rejected, data.template)
        if len(prompt) > data.max_prompt_length:
            if data.on_bad_row == "stop":
                raise UserError(
                    f"the prompt of {pair.id} has {len(prompt)} tokens, "
                    f"data.max_prompt_length is {data.max_prompt_length}:"
                    " raise it, or data.on_bad_row=skip"
                )
            counts.prompt_too_long.append(pair.id)
            continue
        limit = data.max_completion_length
        counts.truncated += len(chosen) > limit or len(rejected) > limit
        chosen, rejected = chosen[:limit], rejected[:limit]
        if chosen == rejected:
            counts.same_after_cut.append(pair.id)
            continue
        group = Group(tuple(prompt), (tuple(chosen), tuple(rejected)))
        units.append(Unit(pair.id, (group,), {"p_chosen": pair.p_chosen}))
    counts.kept = len(units)
    if not units:
        raise UserError(
            f"no pair is left of {len(pairs)}: {len(counts.prompt_too_long)} prompts over data.max_prompt_length="
            f"{data.max_prompt_length}, {len(counts.same_after_cut)} pairs equal within data.max_completion_length="
            f"{data.max_completion_length}"
        )
    return units, counts


def prompt_ids(prompts: Sequence[list], tokenizer: Any, data: DataConfig) -> list[list[int]]:
    """Token ids of each prompt, ready to be answered."""
    return [encode_prompt(tokenizer, prompt, data.template) for prompt in prompts]
