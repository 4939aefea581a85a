"""The reference policy: the base under switched-off adapters, or a frozen copy of the policy as it began."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.packing import Batch
from alignment.config import ReferenceConfig
from alignment.models.adapters import is_adapted
from alignment.models.logps import sum_by_completion, token_logps


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradient inside; the mode is put back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class AdapterOff:
    """The policy's own base: no second set of weights."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy  # the unwrapped peft model

    @contextmanager
    def active(self, wrapped: nn.Module) -> Iterator[nn.Module]:
        """The model to call: the wrapped policy, with adapters off inside."""
        with eval_mode(wrapped), self.policy.disable_adapter():
            yield wrapped


class FrozenCopy:
    """A second set of weights that no optimiser sees."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    @contextmanager
    def active(self, wrapped: nn.Module) -> Iterator[nn.Module]:
        with torch.no_grad():
            yield self.model


Reference = AdapterOff | FrozenCopy


def build_reference(policy: Any, config: ReferenceConfig, other: nn.Module | None = None) -> Reference:
    """The reference for `policy`, made before its first step; `other` is the model of `config.path`, where given."""
    if other is not None:
        return FrozenCopy(other)
    if is_adapted(policy) and config.kind != "frozen_copy":
        return AdapterOff(policy)
    return FrozenCopy(copy.deepcopy(policy))


def reference_sums(
    reference: Reference,
    wrapped: nn.Module,
    batch: Batch,
    temperature: float = 1.0,
    token_weights: Tensor | None = None,
) -> Tensor:
    """Summed log-probs (C,) of the batch's completions under the reference, without gradient.

    `token_weights` (N,) multiply the tokens' log-probs first.
    """
    with reference.active(wrapped) as model:
        logps = token_logps(model, batch, temperature)
        return sum_by_completion(logps if token_weights is None else token_weights * logps, batch)
