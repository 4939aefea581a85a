"""What to change where a run does not fit, in order, each with what it would save."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.memory.estimate import ADAMW, OPTIMISERS, Estimate, estimate
from alignment.models.precision import has_bfloat16, settled_dtype

SMALLEST = 256  # tokens of a micro-batch below which nothing is saved that is worth the passes


@dataclass(frozen=True)
class Change:
    """One setting: where it helps, and what it is set to."""

    key: str
    value: Callable[[RunConfig], Any]
    helps: Callable[[RunConfig], bool]
    note: str = ""


def _is_full(config: RunConfig) -> bool:
    return config.peft.method == "none"


# In the order in which they cost least. A setting that this version does not have is passed over.
CHANGES = (
    Change("peft.method", lambda c: "lora", _is_full, "adapters alone are trained, and the base is the reference"),
    Change(
        "model.dtype",
        lambda c: "bfloat16",
        lambda c: not _is_full(c) and has_bfloat16() and settled_dtype(c.model.dtype) == "float32",
        "of the frozen weights",
    ),
    Change(
        "training.gradient_checkpointing",
        lambda c: True,
        lambda c: not c.training.gradient_checkpointing,
        "a pass more, about a third of the time",
    ),
    Change(
        "training.token_budget",
        lambda c: c.training.token_budget // 2,
        lambda c: c.training.token_budget // 2 >= SMALLEST,
        "more and smaller micro-batches, the same update",
    ),
    Change(
        "training.optimizer",
        lambda c: "adamw_8bit",
        lambda c: _is_full(c) and OPTIMISERS.get(c.training.optimizer, ADAMW) > OPTIMISERS["adamw_8bit"],
        "needs bitsandbytes",
    ),
    Change(
        "model.quantization",
        lambda c: "4bit",
        lambda c: not _is_full(c) and getattr(c.model, "quantization", None) != "4bit",
        "of the frozen weights; needs bitsandbytes",
    ),
)


@dataclass(frozen=True)
class Advice:
    """One override, what it saves alone, and what the run takes with it and all before it (bytes)."""

    override: str
    saves: int
    then: int
    note: str


def advise(config: RunConfig, found: Estimate, room: int, **how: Any) -> list[Advice]:
    """Changes in their order, each on top of those before, until the run fits into `room` bytes or none is left.

    A change that saves nothing of this run is left out.

    Args:
        found: `estimate(config, **how)`.
    """
    advice: list[Advice] = []
    now, taken = copy.deepcopy(config), found.total
    for change in CHANGES:
        while taken > room and _has(now, change.key) and change.helps(now):
            changed = copy.deepcopy(now)
            value = change.value(now)
            _set(changed, change.key, value)
            try:
                then = estimate(changed, **how).total
            except UserError:  # does not go with the rest of the recipe
                break
            if then >= taken:
                break
            word = str(value).lower() if isinstance(value, bool) else value
            key = "peft" if change.key == "peft.method" else change.key
            line = Advice(f"{key}={word}", taken - then, then, change.note)
            if advice and advice[-1].override.startswith(f"{key}="):  # halved again: one line
                line = Advice(line.override, line.saves + advice.pop().saves, then, change.note)
            advice.append(line)
            now, taken = changed, then
    return advice


def _has(config: RunConfig, key: str) -> bool:
    section, name = key.split(".")
    return hasattr(getattr(config, section), name)


def _set(config: RunConfig, key: str, value: Any) -> None:
    section, name = key.split(".")
    setattr(getattr(config, section), name, value)
