"""A frozen base in 8 or 4 bits through bitsandbytes: how it is loaded, and what its adapter remembers of it.

Only the linear layers are quantised; embeddings, norms and the head stay in `model.dtype`, in which the layers compute.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alignment.errors import UserError
from alignment.models.precision import settled_dtype

KINDS = ("8bit", "4bit")
OLDEST = (0, 50)  # 0.49 has no 8-bit optimiser for a CPU; older ones were not tried
INSTALL = "pip install 'alignment-toolkit[quantised]'"
NOTE = "quantization.json"  # beside an adapter: what its base was when it was trained


def require(setting: str) -> None:
    """Raises UserError where bitsandbytes is missing or too old; `setting` is what asks for it."""
    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"{setting} needs bitsandbytes, which is not installed: {INSTALL}") from None
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise UserError(f"{setting} needs bitsandbytes {'.'.join(map(str, OLDEST))} or newer, not {version}: {INSTALL}")


def settings(kind: str, dtype: torch.dtype, setting: str | None = None) -> Any:
    """What transformers is told: NF4 with double quantisation (QLoRA, 2305.14314), or 8 bits (LLM.int8, 2208.07339).

    Args:
        kind: 8bit or 4bit.
        dtype: in which the layers compute.
        setting: what asks for it, in messages.
    """
    require(setting or f"model.quantization={kind}")
    _import()
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _import() -> Any:
    """bitsandbytes, which on some CPUs would fetch a faster kernel from a hub and run it, where `kernels` is there."""
    absent = object()
    before = sys.modules.get("kernels", absent)
    sys.modules["kernels"] = None  # type: ignore[assignment]  # importing it fails
    try:
        import bitsandbytes
    finally:
        if before is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]
    return bitsandbytes


def is_quantised(model: nn.Module) -> bool:
    return any(type(weight).__name__ in ("Params4bit", "Int8Params") for weight in model.parameters())


def weights_in(weight: torch.Tensor) -> int:
    """How many numbers a weight stands for: in 4 bits, two or more lie in one element."""
    state = getattr(weight, "quant_state", None)
    return math.prod(state.shape) if state is not None else weight.numel()


def steady(model: nn.Module) -> nn.Module:
    """`model`, whose quantised layers compute the same in eval mode as in training; returns it.

    On a CPU bitsandbytes does not: without gradient it takes a bfloat16 kernel, or rounds activations to 8 bits. The
    reference, and the policy's own log-probs of a phase, would be off by tenths of a nat from those in training.
    """
    nn = _import().nn
    for module in model.modules():
        if isinstance(module, (nn.Linear4bit, nn.Linear8bitLt)):
            module.register_forward_pre_hook(_in_training_mode)
    return model


def _in_training_mode(module: nn.Module, inputs: Any) -> None:
    module.training = True


def plain(model: Any, dtype: torch.dtype) -> Any:
    """`model` with plain linear layers, whose weights are the numbers that the quantised ones stand for, in `dtype`."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it says at each call which dtype it takes
    try:
        return model.dequantize(dtype=torch.float32).to(dtype)
    finally:
        logging.set_verbosity(level)


def note(folder: Path, kind: str | None, dtype: str) -> None:
    """Write beside the adapter in `folder` what its base was; nothing for a plain one."""
    if kind is not None:
        content = {"quantization": kind, "dtype": settled_dtype(dtype)}
        (folder / NOTE).write_text(json.dumps(content) + "\n", encoding="utf-8")


def noted(folder: Path, run: Any) -> tuple[str | None, str]:
    """(kind, dtype) of the base under the adapter in `folder`, whose run has the configuration `run`, where known.

    Raises:
        UserError: a broken note.
    """
    file = folder / NOTE
    found = run.get("model") if isinstance(run, dict) else None
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file} is not valid JSON: {error}") from error
    found = found if isinstance(found, dict) else {}
    kind = found.get("quantization")
    if kind is not None and kind not in KINDS:
        raise UserError(f"{file}: quantization is {kind!r}, not {' or '.join(KINDS)}")
    return kind, settled_dtype(str(found.get("dtype", "float32")))
