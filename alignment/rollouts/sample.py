"""Sample one answer a prompt, in batches; answers stay token ids and are decoded once, for reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alignment.models.logps import causal_lm


@dataclass(frozen=True)
class Answer:
    """A sampled completion: its token ids with the end token where it came to one, and its text without."""

    ids: tuple[int, ...]
    text: str
    finished: bool  # False: cut at max_new_tokens


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token id that ends an answer, of the tokenizer and of the model's generation settings."""
    configured = getattr(getattr(causal_lm(model), "generation_config", None), "eos_token_id", None) or []
    return {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}


@torch.no_grad()
def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    after_batch: Callable[[int], None] | None = None,
) -> list[Answer]:
    """One answer to each prompt (token ids), in the prompts' order. Temperature 0 decodes greedily.

    The random state outside is left as it was. `after_batch` is called with the number of answers made so far.
    """
    ends = end_tokens(model, tokenizer)
    device = next(model.parameters()).device
    choice: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        choice = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # prompts of a batch are alike in length
    answers: dict[int, Answer] = {}
    training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            torch.manual_seed(seed * 1_000_003 + start)
            width = max(len(prompts[i]) for i in chosen)
            ids = torch.full((len(chosen), width), tokenizer.pad_token_id, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(chosen):
                ids[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask[row, width - len(prompts[i]) :] = 1
            output = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(ends),
                pad_token_id=tokenizer.pad_token_id,
                use_cache=True,  # Trainer switches it off in the model's configuration
                **choice,
            )
            for i, row in zip(chosen, output[:, width:].tolist(), strict=True):
                answers[i] = _answer(row, ends, tokenizer)
            if after_batch is not None:
                after_batch(len(answers))
    model.train(training)
    return [answers[i] for i in range(len(prompts))]


def _answer(row: list[int], ends: set[int], tokenizer: Any) -> Answer:
    stop = next((at for at, token in enumerate(row) if token in ends), None)
    ids = row if stop is None else row[: stop + 1]
    return Answer(tuple(ids), tokenizer.decode(ids, skip_special_tokens=True).strip(), stop is not None)
