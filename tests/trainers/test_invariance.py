"""The update does not depend on the token budget, the order of the units or the number of processes, for any loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.launching import launch
from tests.trainers.invariance import ANSWER_SETTINGS, SETTINGS, gradients

LOSSES = [*SETTINGS, *ANSWER_SETTINGS]


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
