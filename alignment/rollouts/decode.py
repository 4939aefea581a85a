"""Token by token: a prompt is encoded once, its cache repeated for all its completions, finished rows dropped.

`Policy`, `TwoPolicies` and `AdapterAndBase` answer the same three calls: `prefill`, `step` and `select`. `decode` is
the loop over them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignment.models.logps import causal_lm
from alignment.rollouts import cache as caches
from alignment.rollouts.sampling import SamplingSettings, draw, mix

FULL_ENOUGH = 7 / 8  # share of rows still running above which dropping the others costs more than it saves


class Completion(NamedTuple):
    """Token ids up to and with the end token, where one came; their log-probs under what they were drawn from."""

    ids: tuple[int, ...]
    logps: tuple[float, ...]
    finished: bool


class Rows(Protocol):
    """The rows being completed, and the next-token logits of each."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Begin anew with a row for each prompt -> logits (R, V) of the first token."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token (R,) to each row -> logits (R, V) of the next one."""

    def select(self, rows: Tensor) -> None:
        """Go on with the rows of these indices; one that comes twice is repeated."""


class Policy:
    """Rows of one model.

    Args:
        core: the transformers causal language model.
        call: what is called with its inputs; the wrapped model, say. Default: `core`.
    """

    def __init__(self, core: Any, call: Callable[..., Any] | None = None) -> None:
        self.core, self.call = core, call or core
        accepted = inspect.signature(type(core).forward).parameters
        self.takes_positions = "position_ids" in accepted
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        self.cache = caches.make_cache(self.core)
        ids, self.mask = left_padded(prompts, self.core.device)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._run(ids)
        self.positions = self.positions[:, -1:]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.positions = self.positions + 1
        return self._run(tokens[:, None])

    def select(self, rows: Tensor) -> None:
        caches.select(self.cache, rows)
        self.mask, self.positions = self.mask[rows], self.positions[rows]

    def _run(self, ids: Tensor) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": self.mask, "past_key_values": self.cache}
        if self.takes_positions:
            inputs["position_ids"] = self.positions
        return self.call(**inputs, **self.last_only, use_cache=True).logits[:, -1]


class TwoPolicies:
    """Rows of the geometric mixture of two models, token by token, each with a cache of its own."""

    def __init__(self, policy: Rows, reference: Rows, beta: float) -> None:
        self.policy, self.reference, self.beta = policy, reference, beta

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        return mix(self.policy.prefill(prompts), self.reference.prefill(prompts), self.beta)

    def step(self, tokens: Tensor) -> Tensor:
        return mix(self.policy.step(tokens), self.reference.step(tokens), self.beta)

    def select(self, rows: Tensor) -> None:
        self.policy.select(rows)
        self.reference.select(rows)


class AdapterAndBase:
    """Rows of the same mixture for a policy with LoRA: one batch, its first half with the adapter, its second without.

    The weights are read once for both halves, which is what a step of few rows costs.
    """

    def __init__(self, policy: Any, beta: float) -> None:
        self.rows, self.beta = Policy(causal_lm(policy), self._call), beta
        self.policy, self.adapter = policy, policy.active_adapters[0]

    def _call(self, **inputs: Any) -> Any:
        half = len(inputs["input_ids"]) // 2
        return self.policy(**inputs, adapter_names=[self.adapter] * half + ["__base__"] * half)

    def _mixed(self, logits: Tensor) -> Tensor:
        own, base = logits.chunk(2)
        return mix(own, base, self.beta)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        return self._mixed(self.rows.prefill([*prompts, *prompts]))

    def step(self, tokens: Tensor) -> Tensor:
        return self._mixed(self.rows.step(tokens.repeat(2)))

    def select(self, rows: Tensor) -> None:
        self.rows.select(torch.cat([rows, rows + len(self.rows.mask) // 2]))


def decode(
    rows: Rows,
    prompts: Sequence[tuple[int, ...]],
    uniform: Tensor,
    settings: SamplingSettings,
    ends: set[int],
    any_rank: Callable[[bool], bool] = bool,
) -> list[Completion]:
    """A completion of each prompt; a prompt that stands there several times is encoded once.

    Args:
        uniform: random numbers (len(prompts), max_new_tokens) float64, a row for each completion.
        ends: token ids that end a completion.
        any_rank: (is one of my rows unfinished) -> must I go on; where the ranks' forward passes wait for each other.
    """
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    logits = rows.prefill(list(places))
    device = logits.device
    if len(places) < len(prompts):
        copies = torch.tensor([places[prompt] for prompt in prompts], device=device)
        rows.select(copies)
        logits = logits[copies]
    uniform, stops = uniform.to(device), torch.tensor(sorted(ends), dtype=torch.long, device=device)
    ids = torch.full(uniform.shape, -1, device=device)
    logps = torch.zeros(uniform.shape, device=device)
    numbers = torch.arange(len(prompts), device=device)  # of the rows that are still decoded
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    for t in range(settings.max_new_tokens):
        tokens, found = draw(logits, uniform[numbers, t], settings)
        ids[numbers, t], logps[numbers, t] = tokens, found
        done |= torch.isin(tokens, stops)
        running = (~done).nonzero()[:, 0]
        if t + 1 == settings.max_new_tokens or not any_rank(len(running) > 0):
            break
        if len(running) <= FULL_ENOUGH * len(done):
            running = running if len(running) else numbers.new_zeros(1)  # one row waits for the other ranks
            rows.select(running)
            numbers, done, tokens = numbers[running], done[running], tokens[running]
        logits = rows.step(tokens)
    # What a finished row drew before it was dropped is cut off.
    return [cut_at_end(*row, ends) for row in zip(ids.tolist(), logps.tolist(), strict=True)]


def cut_at_end(ids: list[int], logps: list[float], ends: set[int]) -> Completion:
    """The completion up to its first end token."""
    length = next((at + 1 for at, token in enumerate(ids) if token in ends), None)
    return Completion(tuple(ids[:length]), tuple(logps[:length]), length is not None)


def left_padded(prompts: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """(ids, mask) of shape (P, longest), each int64; padding is token 0 with mask 0."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)


class _Draw(LogitsProcessor):
    """Makes `generate` take our draw: its greedy choice finds one token only."""

    def __init__(self, uniform: Tensor, settings: SamplingSettings) -> None:
        self.uniform, self.settings = uniform, settings
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens, logps = draw(scores, self.uniform[:, len(self.logps)], self.settings)
        self.logps.append(logps)
        return torch.full_like(scores, -torch.inf).scatter_(-1, tokens[:, None], 0.0)


def decode_by_generate(
    model: Any, prompts: Sequence[tuple[int, ...]], uniform: Tensor, settings: SamplingSettings, ends: set[int]
) -> list[Completion]:
    """The same draws through `model.generate`, for models whose caches `decode` does not know.

    Prompts of one length only: what a recurrent layer makes of padding is its own affair.
    """
    core = causal_lm(model)
    ids, mask = left_padded(prompts, core.device)
    processor = _Draw(uniform.to(core.device), settings)
    with _as_loaded(core):
        found = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=0,
            logits_processor=LogitsProcessorList([processor]),
            use_cache=True,  # Trainer switches it off in the model's configuration
        )
    logps = torch.stack(processor.logps, 1)
    return [cut_at_end(*row, ends) for row in zip(found[:, ids.shape[1] :].tolist(), logps.tolist(), strict=True)]


@contextmanager
def _as_loaded(core: Any) -> Iterator[None]:
    """Without generation settings, whose penalties and filters are not ours, and with the plain `forward`.

    `generate` reads from its signature what a model takes, and `attach` has put another in its place.
    """
    settings, forward = core.generation_config, vars(core).pop("forward", None)
    core.generation_config = GenerationConfig()
    try:
        yield
    finally:
        core.generation_config = settings
        if forward is not None:
            core.forward = forward
