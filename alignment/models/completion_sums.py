"""Log-probs of whole completions, for whoever wants no gradient: units cut by tokens, packed, summed, put in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from alignment.batching.groups import Unit
from alignment.batching.microbatch import cut_by_tokens, groups_of
from alignment.batching.packing import pack
from alignment.models.logps import sum_by_completion, token_logps

TOKEN_BUDGET = 4096  # of one forward pass


@torch.no_grad()
def completion_sums(
    model: nn.Module,
    units: Sequence[Unit],
    layout: str,
    pad_id: int | None,
    temperature: float = 1.0,
    token_budget: int = TOKEN_BUDGET,
) -> list[list[float]]:
    """log p(completion | prompt) in nats at a softmax temperature: a list of each unit's completions, in order.

    Args:
        model: one that `attach` has prepared, in eval mode.
        units: with ids that differ.
        layout: shared, or what `choose_layout` found.
    """
    device = next(model.parameters()).device
    found: dict[str, list[float]] = {}
    for piece in cut_by_tokens(units, token_budget, layout):
        batch = pack(groups_of(piece), layout, pad_id or 0).to(device)
        sums = sum_by_completion(token_logps(model, batch, temperature), batch).cpu()
        rows = sums.split([unit.completions for unit in piece])
        found |= {unit.id: row.tolist() for unit, row in zip(piece, rows, strict=True)}
    return [found[unit.id] for unit in units]
