"""The keys and values of rows that grow by a token at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KNOWN_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}  # by name: older versions lack the last one
ROOM = 128  # positions that a full buffer grows by


class GrowingLayer(DynamicLayer):
    """Writes a token's keys and values into buffers with room, where DynamicLayer copies all that came before."""

    buffers: tuple[Tensor, Tensor]  # `keys` and `values` are views of them

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            return self._set(key_states, value_states)
        start = self.get_seq_length()
        stop = start + key_states.shape[-2]
        keys, values = self.buffers
        if stop > keys.shape[-2]:
            keys, values = _with_room(keys, start, stop), _with_room(values, start, stop)
        keys[:, :, start:stop] = key_states
        values[:, :, start:stop] = value_states
        self.buffers = keys, values
        self.keys, self.values = keys[:, :, :stop], values[:, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        assert self.keys is not None and self.values is not None
        self._set(self.keys[indices], self.values[indices])

    def _set(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        # Without room: rows are often repeated or dropped before the next token comes.
        self.keys, self.values = self.buffers = keys, values
        return keys, values


def _with_room(old: Tensor, filled: int, needed: int) -> Tensor:
    rows, heads, _, size = old.shape
    buffer = old.new_empty(rows, heads, needed + ROOM, size)
    buffer[:, :, :filled] = old[:, :, :filled]
    return buffer


def make_cache(core: Any) -> DynamicCache:
    """A cache for a transformers causal language model whose rows can be repeated and dropped.

    Raises:
        ValueError: a model that keeps something else than the keys and values of (windowed) attention.
    """
    if not core._supports_default_dynamic_cache():
        raise ValueError("it has a cache of its own kind")
    cache = DynamicCache(config=core.config)
    others = {type(layer).__name__ for layer in cache.layers} - KNOWN_LAYERS
    if others:
        raise ValueError(f"its cache has layers of the kind {', '.join(sorted(others))}")
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def select(cache: DynamicCache, rows: Tensor) -> None:
    """Go on with the rows of these indices; one that comes twice is repeated."""
    layers: list[Any] = cache.layers
    for layer in layers:
        if torch.is_tensor(getattr(layer, "keys", None)):  # layers that use the keys of another one keep none
            layer.batch_select_indices(rows)
