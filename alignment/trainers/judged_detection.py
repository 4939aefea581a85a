"""Which tokens of a bad answer CUT detects: how much likelier each one is with the judgment in the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignment.batching.groups import Unit
from alignment.batching.judged import judged_units
from alignment.batching.microbatch import cut_by_tokens, groups_of
from alignment.batching.packing import pack
from alignment.config import RunConfig
from alignment.data.judgment_prompts import load_judgment_template
from alignment.data.views import Judged
from alignment.models.layout_check import choose_layout
from alignment.models.logps import attach, token_logps
from alignment.models.reference import eval_mode


@dataclass(frozen=True)
class Detected:
    """An unsatisfactory answer, and for each of its tokens how much its judgment explains it."""

    record: Judged
    ids: tuple[int, ...]  # of the answer, end-of-turn token included
    log_ratio: list[float]  # log p(y_t | x, j-) - log p(y_t | x, j+), or - log p(y_t | x): nats

    def tokens(self, margin: float) -> list[bool]:
        """Which tokens CUT detects at `margin` (> 0; its lambda): those with a log-ratio above log `margin`."""
        return [ratio > math.log(margin) for ratio in self.log_ratio]


def detect(model: Any, tokenizer: Any, records: Sequence[Judged], config: RunConfig) -> list[Detected]:
    """The unsatisfactory ones among `records` with their log-ratios, in order.

    Left out are those whose prompt, with its judgment or without, is over config.data.max_prompt_length; answers are
    cut at max_completion_length. What an answer is compared with is as in training: the prompt with the template's
    positive judgment, or with the variants of the authors' code (config.loss) the plain prompt.

    Args:
        model: a causal language model with or without an adapter, on its device; it is left in the mode that it is in.
    """
    bad = {record.id: record for record in records if not record.satisfactory}
    if not bad:
        return []
    code = config.loss.get("variant", "paper") != "paper"
    template = load_judgment_template(config.judged.template)
    units, _ = judged_units([*bad.values()], tokenizer, config.data, template, "authors_code" if code else "cut")
    # The last two prompts: with the judgment, and what that is compared with.
    pairs = [
        replace(unit, groups=(unit.groups[1], unit.groups[0] if code else unit.aside[0]), aside=()) for unit in units
    ]
    attach(model)
    layout, _ = choose_layout(model, config.training.layout)
    found: dict[str, list[float]] = {}
    device = next(model.parameters()).device
    with eval_mode(model):
        for piece in cut_by_tokens(pairs, config.training.token_budget, layout):
            batch = pack(groups_of(piece), layout, tokenizer.pad_token_id).to(device)
            rows = iter(token_logps(model, batch).split(batch.lengths.tolist()))
            found |= {unit.id: (next(rows) - next(rows)).tolist() for unit in piece}
    return [Detected(bad[unit.id], _answer(unit), found[unit.id]) for unit in pairs]


def _answer(unit: Unit) -> tuple[int, ...]:
    return unit.groups[0].completions[0]
