"""The passes that take most: a micro-batch of training, and sampling; on tensors without data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alignment.batching.groups import Unit
from alignment.batching.microbatch import groups_of
from alignment.batching.packing import Batch, pack
from alignment.config import RunConfig
from alignment.memory import models
from alignment.memory.batches import Sampling, is_scorer
from alignment.memory.traced import Live, of_all_layers, trace, without_data
from alignment.models.logps import causal_lm, token_logps, token_logps_and_values
from alignment.models.precision import settled_bf16
from alignment.models.scores import completion_scores
from alignment.models.value_head import NAME as VALUE_HEAD
from alignment.rollouts.cache import ROOM
from alignment.rollouts.decode import Policy
from alignment.rollouts.sampling import SamplingSettings, draw


def activations(settings: Any, config: RunConfig, units: Sequence[Unit], layout: str) -> int:
    """Bytes that forward and backward of the micro-batch `units` take at most, beside weights and gradients."""
    batch, step = pack(groups_of(units), layout), forward_and_backward(config)
    bf16 = settled_bf16(config.training.bf16)

    def measure(cut: Any) -> list[int]:
        return trace(models.policy(cut, config), batch, bf16, step)

    return of_all_layers(settings, measure)[0]


def forward_and_backward(config: RunConfig) -> Any:
    scores = is_scorer(config)

    def step(model: nn.Module, batch: Batch, live: Live) -> list[int]:
        if scores:
            loss = completion_scores(model, batch).sum()
        elif hasattr(causal_lm(model), VALUE_HEAD):
            tokens, values = token_logps_and_values(model, batch)
            loss = tokens.sum() + values.sum()
        else:
            loss = token_logps(model, batch).sum()
        with torch.autocast("cpu", enabled=False):
            loss.backward()
        return [live.peak]

    return step


def sampling(settings: Any, config: RunConfig, wanted: Sampling) -> tuple[int, int]:
    """(bytes of keys and values at their longest, bytes beside them at the highest) of one batch of completions."""
    prompts = max(1, wanted.rows // wanted.copies)
    bf16 = settled_bf16(config.training.bf16) and models.torch_dtype(config.model.dtype) == torch.float32
    full = wanted.prompt + -(-wanted.new_tokens // ROOM) * ROOM  # buffers grow by ROOM positions at a time

    def measure(cut: Any) -> list[int]:
        mode = FakeTensorMode()
        model: Any = without_data(models.policy(cut, config).eval(), mode)
        rows = Policy(causal_lm(model), model)
        with mode, torch.no_grad(), Live() as live, torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            for tensor in (*model.parameters(), *model.buffers()):
                live.note(tensor)
            live.now = live.peak = 0
            logits = rows.prefill([[0] * wanted.prompt] * prompts)
            prefill, live.peak = live.peak, live.now
            if prompts < wanted.rows:
                copies = torch.arange(wanted.rows) % prompts
                rows.select(copies)
                logits = logits[copies]
            cache = kept(rows)
            tokens, _ = draw(logits, torch.zeros(wanted.rows, dtype=torch.float64), SamplingSettings(1))
            logits = rows.step(tokens)
            return [prefill, live.peak - kept(rows), cache]

    prefill, beside, cache = of_all_layers(settings, measure)
    longest = cache * full // wanted.prompt
    return longest, max(beside, prefill - longest)


def kept(rows: Policy) -> int:
    """Bytes of the buffers of a cache, room included."""
    found = 0
    layers: list[Any] = rows.cache.layers
    for layer in layers:
        buffers = getattr(layer, "buffers", None) or (layer.keys, layer.values)
        found += sum(buffer.untyped_storage().nbytes() for buffer in buffers if torch.is_tensor(buffer))
    return found
