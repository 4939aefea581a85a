"""What `auto` precision is here: bfloat16 where the hardware computes it, float32 where it would only emulate it.

A CPU without instructions for it (AVX2 alone, say) multiplies matrices in bfloat16 some fifty times slower.
"""

from __future__ import annotations

from functools import cache

import torch

from alignment.config import RunConfig

AUTO = "auto"


@cache
def has_bfloat16() -> bool:
    """Whether bfloat16 is computed here and not emulated."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a PyTorch built without oneDNN
        return False


def settled_dtype(name: str) -> str:
    """The name of a dtype: `auto` is bfloat16 or float32."""
    return ("bfloat16" if has_bfloat16() else "float32") if name == AUTO else name


def settled_bf16(bf16: bool | str) -> bool:
    """Whether autocast to bfloat16 is on."""
    return has_bfloat16() if bf16 == AUTO else bool(bf16)


def settle(config: RunConfig) -> None:
    """Put what `auto` is here into the settings of a run, so that it is resumed with the same anywhere."""
    config.model.dtype, config.training.bf16 = settled_dtype(config.model.dtype), settled_bf16(config.training.bf16)
