"""Which weights are trained: LoRA adapters through peft, or all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from alignment.config import PeftConfig
from alignment.errors import UserError


def add_adapter(model: PreTrainedModel, config: PeftConfig, task_type: str = "CAUSAL_LM") -> Any:
    """`model` with a fresh LoRA adapter, or unchanged with `method=none`.

    With the `task_type` SEQ_CLS the head of scores is trained and saved with the adapter, as a whole.

    Raises:
        UserError: target modules that the model does not have.
    """
    if config.method == "none":
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


def is_adapted(model: Any) -> bool:
    """True for a peft model, whose untouched base is the reference."""
    return hasattr(model, "disable_adapter") and hasattr(model, "peft_config")
