"""Does this model's attention take the shared layout? Asked once at load, on a small batch."""

from __future__ import annotations

import torch
from torch import nn

from alignment.batching.groups import Group
from alignment.batching.packing import pack
from alignment.models.logps import causal_lm, token_logps

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}  # nats; a wrong mask is off by whole ones


def shared_layout_deviation(model: nn.Module) -> float:
    """Mean absolute difference of a token's log-prob between the two layouts, in nats, over two small groups."""
    vocabulary = causal_lm(model).config.get_text_config().vocab_size
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (length,), generator=draw).tolist())

    groups = [Group(ids(5), (ids(4), ids(7), ids(1))), Group(ids(2), (ids(3), ids(6)))]
    training = model.training
    model.eval()
    with torch.no_grad():
        shared, padded = (token_logps(model, pack(groups, layout).to(device)) for layout in ("shared", "padded"))
    model.train(training)
    return float((shared - padded).abs().mean())  # the mean: half precision rounds single tokens far


def choose_layout(model: nn.Module, wanted: str) -> tuple[str, str | None]:
    """(layout to use, why it is not the wanted one). A model that takes no 4-D mask falls back to `padded`."""
    if wanted != "shared":
        return wanted, None
    name = type(causal_lm(model)).__name__
    try:
        deviation = shared_layout_deviation(model)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        return (
            "padded",
            f"{name} does not take the shared layout ({' '.join(str(error).split())[:120]}): using padded rows",
        )
    if not deviation <= TOLERANCE.get(next(model.parameters()).dtype, 1e-3):
        return "padded", f"{name} is off by {deviation:.2g} nats in the shared layout: using padded rows"
    return "shared", None
