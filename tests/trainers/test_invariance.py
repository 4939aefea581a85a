"""The update does not depend on the token budget, the order of the units or the number of processes, for any loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alignment.trainers.dpo import DPOTrainer
from alignment.trainers.kto import KTOTrainer
from tests.launching import launch
from tests.trainers.invariance import ANSWER_SETTINGS, OTHER_TRAINERS, SETTINGS, gradient, gradients, trainer_of

LOSSES = [*SETTINGS, *ANSWER_SETTINGS, *OTHER_TRAINERS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Every loss's gradient with the whole step in one micro-batch."""
    return gradients(tmp_path_factory.mktemp("whole"), 100_000)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("others")
    found = {
        "one unit a micro-batch": gradients(folder / "one", 1),
        "small budget": gradients(folder / "small", 120),
        "other order": gradients(folder / "order", 100_000, backwards=True),
    }
    (folder / "two").mkdir()
    # The ranks get different numbers of micro-batches, so no_sync and the fillers are in it, too.
    done = launch(["-m", "tests.trainers.invariance", str(folder / "two"), "100"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    found["two processes"] = torch.load(folder / "two" / "gradients.pt", weights_only=True)
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_same_gradient(loss: str, whole: dict, others: dict) -> None:
    expected = whole[loss]
    assert expected.norm() > 0
    for what, found in others.items():
        assert (found[loss] - expected).norm() / expected.norm() < 1e-5, what


class HostReads(TorchDispatchMode):
    """Counts how often a tensor's value is read by Python: each waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [DPOTrainer, KTOTrainer])
def test_the_host_waits_for_the_device_once_a_step_not_once_a_micro_batch(kind: type, tmp_path: Path) -> None:
    counts, cuts = [], []
    for budget in (100_000, 1):
        trainer = trainer_of(kind, tmp_path, budget, {"name": "kto" if kind is KTOTrainer else "sigmoid"})
        trainer.train_units = trainer.train_units[:4]
        cuts.append(len(trainer.micro_batches(trainer.train_units)))
        with HostReads() as reads:
            gradient(trainer, backwards=False)
        counts.append(reads.count)
    assert cuts[0] < cuts[1] == 4
    assert counts[0] == counts[1] <= 3
