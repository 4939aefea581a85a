"""recipe=pit_full, two steps of each stage on `tiny`: which model each starts from, and going on when it is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.launch.entry import main
from alignment.launch.pit_full import FOLDERS
from tests.end_to_end.test_judgment_recipes import Killed, kill_in_training, same_weights, summary_of
from tests.launching import launch

FEW = ["recipe=pit_full", "model=tiny", "training.max_steps=2", "training.batch_size=4", "rollout.prompts=4"]
FEW += ["evaluation.prompts=4", "evaluation.max_new_tokens=8", "rollout.max_new_tokens=8", "data.eval_limit=4"]
FEW += ["pit.stages.gap.data.eval_limit=4", "pit.stages.reward.data.eval_limit=4", "training.learning_rate=1e-3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("pit") / "run"
    assert main([*FEW, "pit.stages.gap.training.max_steps=3", f"output_dir={folder}"]) == 0
    return folder


def settings(folder: Path, stage: str) -> dict[str, Any]:
    return yaml.safe_load((folder / FOLDERS[stage] / "config.yaml").read_text())


def test_every_stage_starts_from_the_right_model_and_third(whole: Path, capsys: pytest.CaptureFixture) -> None:
    of = {name: settings(whole, name) for name in FOLDERS}
    assert [of[name]["method"] for name in FOLDERS] == ["sft", "pit_sft", "reward", "pit_gap", "p3o", "pit"]
    assert [of[name]["data"]["part"] for name in FOLDERS] == ["sft", "sft", "reward", "reward", "rl", "rl"]
    starts = {name: Path(of[name]["model"]["path"]).name for name in FOLDERS}
    assert [*starts.values()] == ["tiny", "tiny", "1-policy", "1-improver", "1-policy", "1-improver"]
    assert of["policy_rl"]["feedback"] == {"name": "reward_model", "path": str(whole / "2-reward")}
    assert of["improver_rl"]["feedback"] == {"name": "gap_reward", "path": str(whole / "2-gap")}
    assert of["improver_rl"]["pit"]["policy"] == str(whole / "3-policy")
    assert [of[name]["loss"]["name"] for name in FOLDERS] == ["nll", "nll", "bradley_terry", "gap", "p3o", "p3o"]
    assert "clipping" not in of["gap"]["loss"]  # nothing is left of the whole's loss

    summary = summary_of(whole)
    assert summary["method"] == "pit_full" and "improved" in summary
    assert [(row["stage"], row["steps"]) for row in summary["stages"]] == [
        (folder, 3 if folder == "2-gap" else 2) for folder in FOLDERS.values()
    ]
    assert same_weights(whole, whole / "3-improver") and (whole / "report.html").stat().st_size > 0
    assert main([f"resume={whole}"]) == 0
    assert "3-improver: done before" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["2-gap", "3-improver"])
def test_killed_and_resumed_is_the_same_run(
    stage: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_in_training(stage)(patch)
        with pytest.raises(Killed):
            main([*FEW, "pit.stages.gap.training.max_steps=3", f"output_dir={folder}"])
    assert not (folder / "summary.json").exists()
    assert main([f"resume={folder}"]) == 0
    for place in FOLDERS.values():
        assert same_weights(folder / place, whole / place)
    assert summary_of(folder)["improved"] == summary_of(whole)["improved"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("feedback=plain_words", "recipe=pit_full trains its own"),
        ("pit.policy=tiny", "pit.policy: recipe=pit_full trains its own"),
        ("pit.stages.gapp.training.max_steps=3", "did you mean gap"),
        ("pit.stages.gap.training.max_step=3", "max_step"),
        ("pit.stages.gap.training.batch_size=0", "stage gap: training.batch_size=0: must be at least 1"),
        ("pit.stages.improver_rl.loss=sigmoid", "pit.stages.improver_rl"),
        ("model.path=tyni", "did you mean tiny"),
    ],
)
def test_mistakes(change: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([*FEW, change, f"output_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and len(error.strip().splitlines()) <= 2
    assert not (tmp_path / "run/1-policy").exists()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = launch(["train.py", *FEW, f"output_dir={folder}"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "summary.json").read_text())["steps"] == 2
    assert done.stdout.count("3-improver: 2 steps of pit") == 1
