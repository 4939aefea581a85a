"""PPO's value head: one number for each position, on the policy's own hidden states.

It is a module of the policy, so that it is trained, wrapped and moved with it, and no part of what is saved as the
policy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from alignment.models.logps import causal_lm

NAME = "value_head"


def add_value_head(policy: Any) -> nn.Linear:
    """A head that starts at zero: before it has learned, every state has the value 0."""
    core = causal_lm(policy)
    head = nn.Linear(core.config.get_text_config().hidden_size, 1, dtype=torch.float32)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    core.add_module(NAME, head.to(next(core.parameters()).device))
    return head


@contextmanager
def without_value_head(policy: Any) -> Iterator[None]:
    """The policy alone, for saving."""
    core = causal_lm(policy)
    head = core._modules.pop(NAME, None)
    try:
        yield
    finally:
        if head is not None:
            core.add_module(NAME, head)
