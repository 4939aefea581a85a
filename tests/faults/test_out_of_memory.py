"""Out of memory is one message with the shape of what did not fit and the mend, and the steps so far are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.errors import UserError
from alignment.losses.record import LossOutput
from alignment.out_of_memory import OutOfMemory, is_out_of_memory, named
from alignment.rollouts import sampler
from alignment.trainers.checkpoints import whole_checkpoints
from tests.faults.runs import dpo
from tests.trainers.online_runs import trainer_of

CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (MemoryError(), True),
        (RuntimeError(CPU), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_are_meant(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one
    with pytest.raises(OutOfMemory if is_one else type(error)), named(lambda: "shape"):
        raise error


def test_a_real_one_is_known() -> None:
    with pytest.raises(OutOfMemory, match="out of memory: 2 to the 60 bytes"), named(lambda: "2 to the 60 bytes"):
        torch.empty(2**60, dtype=torch.uint8)


def test_in_a_training_step(tmp_path: Path) -> None:
    def change(number: int, found: LossOutput) -> LossOutput:
        if number == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return found

    trainer = dpo(tmp_path, change, save_steps=None)
    with pytest.raises(UserError) as caught:
        trainer.train()
    says, mend = str(caught.value).splitlines()
    assert says.startswith("out of memory: a micro-batch of 2 examples, 4 completions in shared rows, ")
    assert "while training step 4; the largest example is pair-" in says
    largest = int(says.split(" with ")[-1].split()[0])
    # No smaller than the largest example, which is never cut: below it, the budget changes nothing.
    assert mend.startswith(f"Mend: training.token_budget={largest}, which changes no update; training.gradient_check")
    assert mend.endswith(f"resume={tmp_path}")
    assert [folder.name for folder in whole_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_while_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer_of("p3o", tmp_path, 8)
    decode = sampler.decode

    def decoding(*given: Any) -> Any:
        if run.state.global_step:
            raise RuntimeError(CPU)
        return decode(*given)

    monkeypatch.setattr(sampler, "decode", decoding)
    with pytest.raises(UserError) as caught:
        run.train()
    says, mend = str(caught.value).splitlines()
    assert says.startswith("out of memory: 8 completions decoded at once, of prompts of up to ")
    assert "rollout.batch_size" in mend and "evaluation.batch_size" in mend
    assert whole_checkpoints(tmp_path)[-1].name == "checkpoint-4"
