"""Trackers through the Trainer, for real and offline: their files are in the run folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ROOT, environment

SCRIPT = """
import sys
from pathlib import Path
from tests.trainers.test_dpo import settings
from tests.trainers.pairs import some_pairs
from alignment import DPOTrainer
config = settings(max_steps=2, report_to=sys.argv[2].split(","))
DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=Path(sys.argv[1])).train()
"""


def test_wandb_offline_tensorboard_and_trackio(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("tensorboard")
    pytest.importorskip("trackio")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), "wandb,tensorboard,trackio"],
        env=environment(WANDB_MODE="offline"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    events = list(tmp_path.glob("tensorboard/**/events.out.tfevents.*"))
    assert events
    assert (tmp_path / "trackio" / "alignment.db").is_file()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(os.path.dirname(events[0]))
    accumulator.Reload()
    assert {"train/loss", "train/margin", "train/tokens_per_second"} <= set(accumulator.Tags()["scalars"])
    assert [event.step for event in accumulator.Scalars("train/loss")] == [1, 2]
