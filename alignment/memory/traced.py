"""What a pass takes at its highest, from the program itself: the real modules on tensors without data.

The model is built on torch's meta device and its tensors are replaced by fake ones, which have a shape and a dtype and
no memory. Then the functions that train and sample are called, and every storage that comes and goes is counted. So
LoRA, gradient checkpointing, masks, autocast and the chunked head are counted as they are, for any architecture.

Layers are alike, so one and two of them are traced, and the rest is a straight line.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from alignment.batching.packing import Batch


class Live(TorchDispatchMode):
    """Bytes of the storages that are alive: `now`, and at its highest, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.note, out)
        return out

    def note(self, tensor: Tensor) -> None:
        """Count the tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def without_data(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """`model`, from the meta device, with fake CPU tensors in place of its own; tied ones stay tied."""
    made: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Any:
        if id(tensor) not in made:
            with mode:
                new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if is_weight else new
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)
    return model


def fake_batch(batch: Batch, mode: FakeTensorMode) -> Batch:
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch)}
    fake: dict[str, Any] = {name: mode.from_tensor(t) for name, t in tensors.items() if torch.is_tensor(t)}
    return replace(batch, **fake)


def trace(model: nn.Module, batch: Batch, bf16: bool, step: Callable[[nn.Module, Batch, Live], list[int]]) -> list[int]:
    """`step(model, batch, live)` on tensors without data; weights and gradients are alive before it and not counted."""
    mode = FakeTensorMode()
    without_data(model, mode)
    with mode:
        for weight in model.parameters():
            if weight.requires_grad:  # as in every micro-batch but the first one
                weight.grad = torch.empty_like(weight)
    with mode, Live() as live:
        for weight in model.parameters():
            live.note(weight)
            if weight.grad is not None:
                live.note(weight.grad)
        for buffer in model.buffers():
            live.note(buffer)
        batch = fake_batch(batch, mode)
        live.now = live.peak = 0
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            return step(model, batch, live)


def of_all_layers(config: Any, measure: Callable[[Any], list[int]]) -> list[int]:
    """`measure(config)` of the whole model, from that of its first layer and of its first two."""
    layers = config.get_text_config().num_hidden_layers
    if layers <= 2:
        return measure(config)
    one, two = measure(with_layers(config, 1)), measure(with_layers(config, 2))
    return [first + (layers - 1) * (second - first) for first, second in zip(one, two, strict=True)]


def with_layers(config: Any, layers: int) -> Any:
    """The configuration of the same model cut after so many layers."""
    cut = copy.deepcopy(config)
    text = cut.get_text_config()
    kinds = getattr(text, "layer_types", None)
    text.num_hidden_layers = layers
    if kinds:
        text.layer_types = kinds[:layers]
    return cut
