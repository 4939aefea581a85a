"""Killed while the trained model is measured: the run goes on without training again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import UserError
from alignment.launch import training_run
from alignment.launch.entry import main
from alignment.trainers.base import AlignmentTrainer
from alignment.trainers.checkpoints import whole_checkpoints
from tests.end_to_end.test_judgment_recipes import Killed, same_weights
from tests.faults.runs import rows

FEW = ["recipe=dpo", "model=tiny", "training.max_steps=2", "training.batch_size=4", "evaluation.prompts=2"]
FEW += ["evaluation.max_new_tokens=8", "data.limit=40", "data.eval_limit=4"]


def table(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text())
    return {name: found[name] for name in ("steps", "pairs", "score", "length", "kl", "fluency", "data")}


def killed(*unused: Any) -> None:
    raise Killed


def test_goes_on_where_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert main([*FEW, f"output_dir={whole}"]) == 0
    assert not (whole / "checkpoints").exists()  # none were asked for
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "measure", killed)
        with pytest.raises(Killed):
            main([*FEW, f"output_dir={folder}"])
    assert [place.name for place in whole_checkpoints(folder)] == ["checkpoint-2"]

    monkeypatch.setattr(AlignmentTrainer, "training_step", killed)
    assert main([f"resume={folder}"]) == 0
    assert table(folder) == table(whole) and same_weights(folder, whole)
    assert len(rows(folder)) == len(rows(whole)) and not (folder / "checkpoints").exists()


def test_a_full_disk_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(self: Any) -> None:
        raise UserError("cannot write the checkpoint of step 2")

    monkeypatch.setattr(AlignmentTrainer, "keep_steps", full)
    assert main([*FEW, f"output_dir={tmp_path}"]) == 0
    assert "step 2; if it is killed from here on, this run begins anew" in capsys.readouterr().out
    assert table(tmp_path)["steps"] == 2
