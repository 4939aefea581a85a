"""Out of memory, in one message: the shape of what did not fit, and what makes it smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from alignment.batching.groups import Unit
from alignment.errors import UserError

WORDS = ("out of memory", "not enough memory", "can't allocate memory")  # of CUDA's, and of the CPU's allocator


class OutOfMemory(UserError):
    """This process alone has no memory left: the others must not be waited for."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device, or of this machine, did not suffice."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


@contextmanager
def named(describe: Callable[[], str]) -> Iterator[None]:
    """Out of memory inside becomes `OutOfMemory` with what `describe` says: what did not fit, and the mend."""
    try:
        yield
    except OutOfMemory:
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory: {describe()}") from error


def micro_batch(trainer: Any, units: Sequence[Unit], doing: str) -> str:
    """Shape and mend of a micro-batch of `trainer` that did not fit, while `doing`."""
    training = trainer.config.training
    groups = [group for unit in units for group in unit.groups]
    sizes = {unit.id: unit.tokens(trainer.layout) for unit in units}
    largest = max(sizes, key=lambda name: sizes[name])
    tokens = sum(sizes.values())
    shape = (
        f"a micro-batch of {len(units)} examples, {sum(len(group.completions) for group in groups)} completions in "
        f"{trainer.layout} rows, {tokens:,} tokens (training.token_budget={training.token_budget}), while {doing}; the "
        f"largest example is {largest} with {sizes[largest]:,} tokens"
    )
    if len(units) > 1:
        smaller = max(sizes[largest], min(tokens, training.token_budget) // 2)
        first = f"training.token_budget={smaller}, which changes no update"
    else:
        first = "smaller data.max_prompt_length and data.max_completion_length, since one example alone is too large"
    more = [] if training.gradient_checkpointing else ["training.gradient_checkpointing=true"]
    more += ["peft=lora"] if trainer.config.peft.method == "none" else []
    return f"{shape}\nMend: {'; '.join([first, *more])}; {kept(trainer)}"


def kept(trainer: Any) -> str:
    """What is left of the run."""
    if not trainer.state.global_step:
        return "nothing was trained yet"
    return f"steps up to the last checkpoint are kept: resume={trainer.folder}"
