"""Asked once a model: does it give the same logits over a cache that is padded, repeated and thinned out?"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignment.models.layout_check import HEAD_TOLERANCE, REFUSALS
from alignment.models.logps import causal_lm
from alignment.rollouts.decode import Policy

_known: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def why_not_shared(model: Any) -> str | None:
    """Why `decode` cannot sample from `model` (in eval mode); None where it can."""
    core = causal_lm(model)
    if core not in _known:
        _known[core] = _ask(model)
    return _known[core]


def _ask(model: Any) -> str | None:
    try:
        off, dtype = deviation(model)
    except REFUSALS as error:
        return " ".join(str(error).split())[:120] or type(error).__name__
    if not off <= HEAD_TOLERANCE.get(dtype, 1e-4):
        return f"over a shared cache its log-probs are off by {off:.2g} nats"
    return None


@torch.no_grad()
def deviation(model: Any) -> tuple[float, torch.dtype]:
    """(the largest mean distance of next-token log-probs from those of the plain model, in nats; the logits' dtype).

    Two prompts, two completions of each, and after two tokens the first completion of each goes on alone.
    """
    core = causal_lm(model)
    rows = Policy(core, model)
    random = torch.Generator().manual_seed(0)
    vocabulary = core.config.get_text_config().vocab_size
    prompts, tokens = (torch.randint(vocabulary, shape, generator=random).to(core.device) for shape in ((2, 7), (4, 3)))
    short, long = prompts[0, :2], prompts[1]
    copies, first = (torch.tensor(each, device=core.device) for each in ([0, 0, 1, 1], [0, 2]))
    steps = [rows.prefill([short.tolist(), long.tolist()])]
    rows.select(copies)
    steps += [rows.step(tokens[:, t])[first] for t in range(2)]
    rows.select(first)
    steps.append(rows.step(tokens[first, 2]))
    found = torch.stack(steps, 1)  # (2, 4, V)

    def alone(prompt: Tensor, row: int) -> Tensor:
        return model(input_ids=torch.cat([prompt, tokens[row]])[None], use_cache=False).logits[0, -4:]

    expected = torch.stack([alone(short, 0), alone(long, 2)])
    distances = (found.float().log_softmax(-1) - expected.float().log_softmax(-1)).abs()
    return float(distances.mean(-1).max()), found.dtype
