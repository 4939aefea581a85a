"""Which weights are trained: LoRA adapters through peft, or all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from alignment.config import ModelConfig, PeftConfig
from alignment.errors import UserError
from alignment.models.loading import base_of_adapter, is_adapter, load_model, quantization_of, refuse_pickles, resolve
from alignment.models.quantised import is_quantised


def add_adapter(model: PreTrainedModel, config: PeftConfig, task_type: str = "CAUSAL_LM") -> Any:
    """`model` with a fresh LoRA adapter, or the one of `config.path` to go on with; unchanged with `method=none`.

    With the `task_type` SEQ_CLS the head of scores is trained and saved with the adapter, as a whole.

    Raises:
        UserError: target modules that the model does not have; an adapter that is not there, or of another model.
    """
    if config.path:
        if config.method == "none" or task_type != "CAUSAL_LM":
            what = "peft=none" if config.method == "none" else "a model that scores answers"
            raise UserError(
                f"peft.path goes on with a policy's adapter, not with {what}: give model.path={config.path}"
            )
        return _with_adapter(model, config.path, trainable=True, setting="peft.path=")
    if config.method == "none":
        if is_quantised(model):
            raise UserError(
                "peft=none trains all weights, and a quantised base has none that could be: give peft=qlora"
            )
        return model.float() if model.dtype != torch.float32 else model  # the optimiser needs float32 master weights
    from peft import LoraConfig, get_peft_model

    targets = config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules)
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        task_type=task_type,
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        raise UserError(
            f"peft.target_modules={targets}: {' '.join(str(error).split())[:120]} "
            f"(this model has {', '.join(sorted(linear))})"
        ) from error


def load_beside(config: ModelConfig, adapter: str | None = None) -> Any:
    """The model of `config.path` to sample from; where that is an adapter, it stays beside the weights of its base.

    So does the adapter of the folder or run `adapter`, trained on the model of `config.path`.

    Merged into half-precision weights, a small update is mostly rounded away: of an adapter of SmolLM2-135M with a KL
    of 0.105 nats per token to its base, 0.060 were left once it was merged in bfloat16.
    """
    folder = resolve(str(adapter or config.path))
    if not is_adapter(folder):
        if adapter is None:
            return load_model(config)
        raise UserError(f"--adapter {adapter}: there is no LoRA adapter in {folder}")
    base = config.path if adapter else base_of_adapter(Path(folder))
    kind, held = quantization_of(folder)  # a quantised base is loaded as it was trained on
    config = replace(config, path=base, quantization=kind, dtype=held if kind else config.dtype)
    return _with_adapter(
        load_model(config), folder, trainable=False, setting="--adapter " if adapter else "model.path="
    )


def _with_adapter(model: Any, path: str, trainable: bool, setting: str = "model.path=") -> Any:
    """`model` with the adapter of the folder or run `path`; `setting` is what gave it, for messages."""
    from peft import PeftModel

    folder = resolve(path)
    if not is_adapter(folder):
        raise UserError(f"{setting}{path}: there is no LoRA adapter in {folder}")
    base = base_of_adapter(Path(folder))
    if model.name_or_path and model.name_or_path != base:
        raise UserError(f"{setting}{path}: its adapter was trained on {base}, and the model is {model.name_or_path}")
    kind = quantization_of(folder)[0]
    if (kind is not None) != is_quantised(model):
        raise UserError(f"{setting}{path}: its adapter was trained with model.quantization={kind or 'null'}: give that")
    refuse_pickles(folder, None)
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the adapter in {folder} does not fit its base model: {reason}") from error


def is_adapted(model: Any) -> bool:
    """True for a peft model, whose untouched base is the reference."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")
