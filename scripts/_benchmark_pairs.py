"""The pairs of `benchmark.py`: such as both sides tokenise alike, as messages and as plain text."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from alignment.errors import UserError

LIMIT = 512  # tokens of a prompt and of a completion: both together stay within TRL's default max_length, 1024


def prepare(
    model: str, data: str, split: str, count: int, seed: int, limit: int = LIMIT
) -> tuple[str, list[dict[str, Any]]]:
    """(folder of the model, rows): each row a pair as messages, the same pair as plain text, and its lengths in tokens.

    Left out are pairs over the limit, those whose text each side would cut into other tokens, and those that ours
    drops: a user's turn in an answer, or answers that differ in nothing but the text behind their end.
    """
    from alignment.config import ModelConfig
    from alignment.data.readers import load_examples
    from alignment.data.templates import check_tokenizer, encode_pair
    from alignment.data.views import pairs
    from alignment.models.loading import load_tokenizer, resolve

    tokenizer = load_tokenizer(ModelConfig(path=model))
    check_tokenizer(tokenizer)
    found, _ = pairs(load_examples(data, split=split, seed=seed).examples)
    random.Random(seed).shuffle(found)
    rows: list[dict[str, Any]] = []
    long = other = 0
    for pair in found:
        if len(rows) == count:
            break
        prompt, chosen = encode_pair(tokenizer, pair.prompt, pair.chosen)
        _, rejected = encode_pair(tokenizer, pair.prompt, pair.rejected)
        if max(map(len, (prompt, chosen, rejected))) > limit:
            long += 1
            continue
        # As plain text: of messages, TRL also trains what the template writes behind the end of the turn.
        texts = [str(tokenizer.decode(ids)) for ids in (prompt, chosen, rejected)]
        unused = chosen == rejected or any(turn["role"] == "user" for turn in (*pair.chosen, *pair.rejected))
        wanted = [prompt, prompt + chosen, prompt + rejected]
        theirs = [tokenizer(text)["input_ids"] for text in (texts[0], texts[0] + texts[1], texts[0] + texts[2])]
        if unused or theirs != wanted:
            other += 1
            continue
        text = dict(zip(("prompt", "chosen", "rejected"), texts, strict=True))
        lengths = [len(prompt), len(chosen), len(rejected)]
        # A soft label is taken as certain: TRL's loss has none.
        rows.append({"pair": {**dataclasses.asdict(pair), "p_chosen": 1.0}, "text": text, "lengths": lengths})
    if long or other:
        print(f"left out: {long} pairs with over {limit} tokens, {other} that cannot be the same for both sides")
    if len(rows) < count:
        raise UserError(
            f"--data {data} has {len(rows)} pairs that can be compared, {count} are wanted: lower --pairs or --steps "
            f"({long} pairs are over {limit} tokens, {other} cannot be the same for both sides)"
        )
    return resolve(model), rows
