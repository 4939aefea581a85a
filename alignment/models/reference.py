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
from alignment.models.logps import attach, causal_lm, sum_by_completion, token_logps
from alignment.models.shards import gathered, whole


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


class MovingCopy(FrozenCopy):
    """A copy that follows the policy (TR-DPO, 2404.09656): ref <- rate * policy + (1 - rate) * ref.

    Of a policy with LoRA it is the plain model with the adapter merged in, so that the update is exact: a mean of two
    adapters' factors would not be the mean of their products. With a rate below 1 it is kept in float32.
    """

    def __init__(self, policy: Any, rate: float) -> None:
        plain = copy.deepcopy(policy)
        if is_adapted(plain):
            plain = plain.merge_and_unload()
        super().__init__(attach(plain if rate == 1 else plain.float()))
        self.rate = rate

    @torch.no_grad()
    def follow(self, policy: Any) -> None:
        """Move every weight towards the policy's, adapters merged. Of a sharded policy all ranks must ask for it."""
        core = causal_lm(policy)
        with gathered(core):
            known = dict(core.named_parameters())
            for name, weight in self.model.named_parameters():
                target = known[name] if name in known else merged_weight(core, name)
                weight.lerp_(whole(target).to(weight), self.rate)


def merged_weight(core: nn.Module, name: str) -> Tensor:
    """The weight `name` of the plain model, from a model whose layer there is adapted: base plus what that adds."""
    path, _, leaf = name.rpartition(".")
    layer: Any = core.get_submodule(path)
    weight = getattr(layer.get_base_layer(), leaf)
    if leaf == "weight":
        for adapter in layer.active_adapters:
            weight = weight + layer.get_delta_weight(adapter)
    return weight


Reference = AdapterOff | FrozenCopy  # a MovingCopy is a FrozenCopy


def build_reference(policy: Any, config: ReferenceConfig, other: nn.Module | None = None) -> Reference:
    """The reference for `policy`, made before its first step; `other` is the model of `config.path`, where given."""
    if config.update_steps is not None:
        return MovingCopy(policy, config.update_rate)
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
