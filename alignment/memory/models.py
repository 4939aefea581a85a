"""The models of a run on torch's meta device: shapes and dtypes, and no weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.config import ModelConfig, RunConfig
from alignment.errors import UserError
from alignment.memory.batches import is_scorer, trainer_class, without_model
from alignment.models.adapters import add_adapter
from alignment.models.loading import (
    adapters_of,
    attention_setting,
    base_of_adapter,
    load_part,
    resolve,
    torch_dtype,
)
from alignment.models.logps import attach
from alignment.models.scores import HEAD, attach_scores
from alignment.models.value_head import add_value_head
from alignment.trainers.policy import PolicyTrainer

SCORERS = ("reward_model", "preference_model", "gap_reward")  # feedback that has a model of its own,
LOCAL = ("judge_local", "score_local", "critique_local", "checklist")  # and a language model in this process


def architecture(model: ModelConfig) -> Any:
    """The transformers configuration of `model.path`; of an adapter that of its base."""
    if not model.path:
        raise UserError("no model: give model=tiny, model=smollm2-135m or model.path=FOLDER|HUB_ID|FILE.gguf")
    folder = resolve(model.path)
    adapters = adapters_of(folder)
    return load_part(AutoConfig, base_of_adapter(Path(adapters[-1])) if adapters else folder, model, "configuration")


def plain(settings: Any, model: ModelConfig, scores: int = 0) -> Any:
    """The model of a transformers configuration; with `scores`, a scoring one with so many heads."""
    settings = copy.deepcopy(settings)
    factory: Any = AutoModelForCausalLM
    if scores:
        settings.num_labels, factory = scores, AutoModelForSequenceClassification
    options: dict[str, Any] = {"dtype": torch_dtype(model.dtype), "trust_remote_code": model.trust_remote_code}
    if (attention := attention_setting(model.attention)) is not None:
        options["attn_implementation"] = attention
    with torch.device("meta"):
        return factory.from_config(settings, **options)


def policy(settings: Any, config: RunConfig) -> Any:
    """What is trained, as its trainer prepares it: with its adapter, its head, and gradient checkpointing."""
    scores = max(1, len(config.model.objectives)) if is_scorer(config) else 0
    model = plain(settings, config.model, scores)
    if scores:
        getattr(model, HEAD).float()
        model.config.pad_token_id = 0
    # An adapter to go on with is as large as a fresh one of its settings, which are near enough those of `peft`.
    peft = replace(config.peft, path=None)
    with torch.device("meta"):
        model = add_adapter(model, peft, "SEQ_CLS" if scores else "CAUSAL_LM")
        if config.method == "ppo" or config.loss.get("name") == "ppo":
            add_value_head(model)
    (attach_scores if scores else attach)(model)
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def reference(settings: Any, config: RunConfig) -> Any | None:
    """A second set of weights where the run holds one: a frozen, another or a moving model. None: the base, or none.

    Twin of `PolicyTrainer.__init__` and `build_reference`, which decide it with the weights at hand.
    """
    wanted = config.reference
    if is_scorer(config) or config.method == "best_of_n":
        return None
    if wanted.path:
        other = replace(config.model, path=wanted.path)
        return attach(plain(architecture(other), other))
    if wanted.update_steps is None:
        base_is_start = config.peft.method != "none" and not config.peft.path
        if base_is_start and wanted.kind != "frozen_copy":
            return None
        if not base_is_start and wanted.kind == "auto" and not needs_reference(config):
            return None
    model = plain(settings, config.model)
    is_exact = wanted.update_steps is not None and wanted.update_rate == 1
    return attach(
        model if is_exact or (config.peft.method != "none" and wanted.update_steps is None) else model.float()
    )


def needs_reference(config: RunConfig) -> bool:
    """Whether the loss reads a reference."""
    kind = trainer_class(config)
    return issubclass(kind, PolicyTrainer) and bool(without_model(kind, config).needs_reference)


def others(config: RunConfig) -> int:
    """Bytes of the weights of further models: of the feedback, and of the policy whose answers PIT improves."""
    found = 0
    for section in sections(config.feedback):
        if section.get("name") in (*SCORERS, *LOCAL) and section.get("path"):
            is_local = section["name"] in LOCAL
            asked = ModelConfig(
                path=str(section["path"]), dtype=str(section.get("dtype", "auto" if is_local else "float32"))
            )
            found += bytes_of(plain(architecture(asked), asked, 0 if is_local else 1))
    if config.method == "pit" and config.pit.references != "data":
        asked = replace(config.model, path=config.pit.policy or config.model.path)
        found += bytes_of(plain(architecture(asked), asked))
    return found


def sections(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings in `value`, at any depth."""
    if isinstance(value, Mapping):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        yield from sections(item)


def bytes_of(model: nn.Module, trained: bool | None = None) -> int:
    """Bytes of its weights and buffers, tied ones once; of those that are trained, or are not, alone."""
    weights = {id(p): p for p in model.parameters() if trained is None or p.requires_grad == trained}
    buffers = {} if trained else {id(b): b for b in model.buffers()}
    return sum(t.numel() * t.element_size() for t in (*weights.values(), *buffers.values()))


# Bytes of a number in a linear layer of a quantised base: LLM.int8, and NF4 with double quantisation (2305.14314).
QUANTISED = {"8bit": 1.0, "4bit": 4.127 / 8}


def held(model: nn.Module, config: ModelConfig) -> int:
    """Bytes of its weights where those of the frozen linear layers are quantised as `config.quantization` says."""
    kind = getattr(config, "quantization", None)
    size = bytes_of(model)
    if kind is None:
        return size
    linear = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not module.weight.requires_grad and not name.endswith("lm_head")
    ]
    return size - int(sum(weight.numel() * (weight.element_size() - QUANTISED[kind]) for weight in linear))


def stored(config: ModelConfig) -> int:
    """Bytes of the safetensors files of a model in a folder; 0 for a hub id, whose files may not be here yet."""
    folder = resolve(str(config.path))
    adapters = adapters_of(folder)
    base = Path(base_of_adapter(Path(adapters[-1])) if adapters else folder)
    return sum(file.stat().st_size for file in base.glob("*.safetensors")) if base.is_dir() else 0


def trained_elements(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
