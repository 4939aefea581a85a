"""What a model answers, and how far its answers are from those of the model that it was trained from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.batching.groups import Group, Unit
from alignment.batching.units import prompt_ids
from alignment.config import DataConfig, ModelConfig
from alignment.data.example import Message
from alignment.launch.quiet import quiet_libraries
from alignment.models.adapters import is_adapted, load_beside
from alignment.models.completion_sums import completion_sums
from alignment.models.layout_check import choose_layout
from alignment.models.loading import load_tokenizer
from alignment.models.logps import attach
from alignment.models.reference import AdapterOff
from alignment.reproduce.lab import Answers, Sampled
from alignment.rollouts.sampler import PolicySampler, Rollout
from alignment.rollouts.sampling import SamplingSettings


def ask(model: str | Path, prompts: Sequence[list[Message]], sampled: Sampled) -> Answers:
    """Sampled answers of a model. With a LoRA adapter, log-ratios are to its base, at the sampling temperature."""
    quiet_libraries()
    settings = ModelConfig(path=str(model))
    tokenizer, policy = load_tokenizer(settings), load_beside(settings)
    drawn = SamplingSettings(sampled.max_new_tokens, sampled.temperature, batch_size=128)
    ids = prompt_ids(prompts, tokenizer, DataConfig())
    rollouts = PolicySampler(policy, tokenizer, drawn).sample(ids, sampled.k, sampled.seed)
    ratios = [0.0] * len(rollouts)
    if is_adapted(policy) and sampled.temperature:
        base = under_base(policy, tokenizer.pad_token_id, rollouts, sampled.temperature)
        ratios = [sum(rollout.logps) - logp for rollout, logp in zip(rollouts, base, strict=True)]

    def rows(values: Sequence[Any]) -> list[list[Any]]:
        return [list(values[at : at + sampled.k]) for at in range(0, len(values), sampled.k)]

    return Answers(rows([r.text for r in rollouts]), rows([len(r.completion) for r in rollouts]), rows(ratios))


def under_base(policy: Any, pad_id: int, rollouts: Sequence[Rollout], temperature: float) -> list[float]:
    """Summed log-probs of the rollouts with the policy's adapter off, nats."""
    attach(policy)
    layout, _ = choose_layout(policy, "shared")
    units = [Unit(str(at), (Group(each.prompt, (each.completion,)),)) for at, each in enumerate(rollouts)]
    with AdapterOff(policy).active(policy) as base:
        return [logp for (logp,) in completion_sums(base, units, layout, pad_id, temperature)]


def scored(
    reward: Any,
    prompts: Sequence[list[Message]],
    texts: Sequence[Sequence[str]],
    context: Sequence[Mapping[str, Any]] | None = None,
) -> list[list[float]]:
    """The reward of every answer, a list for each prompt; `context` is of the prompts."""
    asked = [prompt for prompt, row in zip(prompts, texts, strict=True) for _ in row]
    known = None if context is None else [c for c, row in zip(context, texts, strict=True) for _ in row]
    values = iter(reward.score(asked, [text for row in texts for text in row], known))
    return [[next(values) for _ in row] for row in texts]
