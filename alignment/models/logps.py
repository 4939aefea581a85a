"""The only place where logits become log-probs.

`attach` teaches a causal language model to answer `model(…, completion=…)` with the log-probs of the completion tokens:
hidden states at the predicting positions only, through the head in chunks, so that the full (tokens x vocabulary)
matrix never exists. Since this is the model's own `forward`, every pass enters through the wrapped model's call, and
DDP's and FSDP's hooks see it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alignment.batching.packing import Batch, shared_mask
from alignment.models.flex import block_mask, takes_block_mask

CHUNK_ELEMENTS = 2**24  # logits alive at a time: 64 MB in float32
LAYER_TYPES = {"full_attention", "sliding_attention"}  # those whose masks are known here
OTHER_WINDOWS = ("window_size", "attention_window_size", "attention_chunk_size")  # GPT-Neo, RecurrentGemma, Llama 4


def token_logps(model: nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
    """log pi(token | what stands before it) of every completion token, at the given softmax temperature.

    Args:
        model: a model that `attach` has prepared, wrapped or not.
        batch: R rows of T tokens with N completion tokens, on the model's device.

    Returns:
        (N,) float32, in the order of `batch.targets`.
    """
    return _score(model, batch, temperature)["logps"]


def token_logps_and_squares(model: nn.Module, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(`token_logps`, log sum_v pi(v | what stands before)^2 at the same positions, without gradient), each (N,).

    The second is the log-prob that two draws agree; with the first it tells how likely a token is for this policy.
    """
    found = _score(model, batch, temperature, squares=True)
    return found["logps"], found["log_sum_squares"]


def token_logps_and_values(model: nn.Module, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(`token_logps`, the value head's V of the state in which each token is chosen), each (N,) float32.

    The model must have a value head (models/value_head.py).
    """
    found = _score(model, batch, temperature, values=True)
    return found["logps"], found["values"]


def _score(
    model: nn.Module, batch: Batch, temperature: float, squares: bool = False, values: bool = False
) -> dict[str, Tensor]:
    completion = {
        "predictors": batch.predictors,
        "targets": batch.targets,
        "temperature": temperature,
        "squares": squares,
        "values": values,
    }
    return call(model, batch, completion)


def call(model: nn.Module, batch: Batch, completion: dict[str, Any]) -> Any:
    """One pass over `batch`; `completion` says to the patched `forward` what is wanted of which positions."""
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
    if batch.layout == "shared":
        inputs["attention_mask"] = attention_masks(causal_lm(model), batch)
    else:
        inputs["attention_mask"] = (batch.segments >= 0).long()
    return model(**inputs, completion=completion)


def sum_by_completion(values: Tensor, batch: Batch) -> Tensor:
    """Sum token values (N,) over each completion -> (C,), same dtype."""
    return values.new_zeros(batch.completions).index_add(0, batch.owners, values)


def causal_lm(model: Any) -> Any:
    """The transformers model inside DDP, FSDP and peft wrappers; nearly always a causal language model."""
    while hasattr(model, "module") or hasattr(model, "get_base_model"):
        model = model.module if hasattr(model, "module") else model.get_base_model()
    return model


def attach(model: nn.Module, forward: Callable[..., Any] | None = None) -> nn.Module:
    """Patch the `forward` of the model inside `model` (once), by default to give log-probs; returns `model`."""
    core = causal_lm(model)
    if "forward" not in vars(core):
        # A bound method, not a closure: deepcopy then binds the copy's forward to the copy.
        core.forward = types.MethodType(forward or _forward, core)
    return model


def _forward(self: Any, *args: Any, completion: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    if completion is None:
        return type(self).forward(self, *args, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    body = self.model if self.base_model is self else self.base_model  # Llama 4 names a base it does not have
    hidden = body(*args, **kwargs, use_cache=False).last_hidden_state
    hidden = hidden.flatten(0, 1)[completion["predictors"]]
    found = head_logps(self, hidden, completion["targets"], completion["temperature"], completion["squares"])
    if completion["values"]:
        with torch.autocast(hidden.device.type, enabled=False):
            # In float32, unless FSDP keeps the head's weights in half precision in a pass.
            found["values"] = self.value_head(hidden.to(self.value_head.weight.dtype)).float().squeeze(-1)
    return found


def head_logps(
    core: Any, hidden: Tensor, targets: Tensor, temperature: float, squares: bool = False
) -> dict[str, Tensor]:
    """(N, d) hidden states and (N,) targets -> `logps` (N,) float32, a chunk of rows at a time.

    With `squares` also `log_sum_squares` (N,): log sum_v p(v)^2, without gradient.
    """
    head = core.get_output_embeddings()
    plain = head.forward

    def piece(h: Tensor, t: Tensor) -> dict[str, Tensor]:
        logits = adjust_logits(core.config, plain(h).float()) / temperature
        total = logits.logsumexp(-1)
        found = {"logps": logits.gather(-1, t[:, None]).squeeze(-1) - total}
        if squares:
            with torch.no_grad():
                found["log_sum_squares"] = (2 * logits).logsumexp(-1) - 2 * total
        return found

    def in_chunks(hidden: Tensor) -> dict[str, Tensor]:
        rows = max(1, CHUNK_ELEMENTS // core.config.get_text_config().vocab_size)
        if hidden.shape[0] <= rows:
            return piece(hidden, targets)
        chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
        if torch.is_grad_enabled():  # a chunk's logits are made again in its backward pass instead of being kept
            found = [checkpoint(piece, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in chunks]
        else:
            found = [piece(h, t) for h, t in chunks]
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}

    # One call of the module, whatever the number of chunks: FSDP's hooks on it must run as often on every rank.
    with _forward_of(head, in_chunks):
        return head(hidden)


@contextmanager
def _forward_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` with another `forward`."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def adjust_logits(config: Any, logits: Tensor) -> Tensor:
    """What some architectures do behind the head; `layout_check` finds at load whether a model does anything else."""
    text = config.get_text_config()

    def setting(name: str) -> Any:
        return getattr(text, name, None)

    cap = setting("final_logit_softcapping") or setting("logits_soft_cap")  # Gemma; RecurrentGemma
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    for name in ("logit_scale", "lm_head_multiplier"):  # Cohere; Falcon-H1
        if setting(name) is not None:
            logits = logits * setting(name)
    if setting("logits_scaling") is not None:  # Granite divides, HyperCLOVA X multiplies
        scale = setting("logits_scaling")
        logits = logits * scale if text.model_type == "hyperclovax" else logits / scale
    return logits


def attention_masks(core: Any, batch: Batch) -> Any:
    """The shared layout's mask in the form that `core` takes.

    Dense bool for SDPA, additive for eager attention, a block mask for FlexAttention; one for each layer type where
    sliding-window layers stand beside full ones.

    Raises:
        ValueError: layers that are not attention, or windows that a model cuts itself, by row index.
    """
    text = core.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or [])
    others = sorted(kinds - LAYER_TYPES) or [name for name in OTHER_WINDOWS if getattr(text, name, None)]
    if others:
        raise ValueError(f"{', '.join(others)} in its layers")
    window = getattr(text, "sliding_window", None)
    if getattr(text, "use_sliding_window", True) is False:
        window = None

    def mask(window: int | None) -> Any:
        if takes_block_mask(core, batch):
            return block_mask(batch, window)
        seen = shared_mask(batch, window)
        if core.config._attn_implementation != "eager":
            return seen
        low = torch.finfo(core.dtype).min
        return torch.zeros(seen.shape, dtype=core.dtype, device=seen.device).masked_fill_(~seen, low)

    if "sliding_attention" in kinds:
        return {kind: mask(window if kind == "sliding_attention" else None) for kind in kinds}
    return mask(None if kinds else window)
