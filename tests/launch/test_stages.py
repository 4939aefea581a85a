"""Several runs in one folder: what is done is not done again, what was stopped goes on, and the end is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignment.config import RunConfig
from alignment.errors import Interrupted, UserError
from alignment.launch import run, stages, training_run
from alignment.launch.entry import main
from alignment.launch.stages import Stages
from alignment.trainers import base
from alignment.trainers.same_run import check_settings
from alignment.trainers.termination import TERMINATION
from tests.end_to_end.data import write_pairs
from tests.launch import two_stages
from tests.launching import launch

SETTINGS = ["model=tiny", "evaluation.prompts=0", "training.max_steps=4", "training.batch_size=4"]
SETTINGS += ["peft.dropout=0.1", "training.learning_rate=1e-3"]


@pytest.fixture(autouse=True)
def method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.STAGED, "two_stages", two_stages.two_stages)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a recipe, and an uninterrupted run."""
    folder = tmp_path_factory.mktemp("given")
    write_pairs(folder / "train.jsonl")
    write_pairs(folder / "test.jsonl", start=100, count=4)
    (folder / "mine.yaml").write_text(
        "description: two stages\nmethod: two_stages\ndefaults: [{override /loss: sigmoid}]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run.STAGED, "two_stages", two_stages.two_stages)
        assert main(arguments(folder, folder / "whole")) == 0
    return folder


def arguments(given: Path, folder: Path, *more: str) -> list[str]:
    data = [f"data.path={given / 'train.jsonl'}", f"data.eval_path={given / 'test.jsonl'}"]
    return [f"recipe={given / 'mine.yaml'}", *SETTINGS, *data, f"output_dir={folder}", *more]


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "adapter_model.safetensors")


def assert_same_end(folder: Path, whole: Path) -> None:
    for place in ("1-first/model", "2-second/model", "model"):
        expected, found = weights(whole / place), weights(folder / place)
        assert expected.keys() == found.keys() and all(expected[name].equal(found[name]) for name in expected), place
    assert losses(folder) == losses(whole) and [step for step, _ in losses(folder)] == [*range(1, 9)]
    assert json.loads((folder / "summary.json").read_text())["lines"] == {"lines": 6}


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def test_the_whole_is_a_finished_run(given: Path) -> None:
    whole = given / "whole"
    for name in ("config.yaml", "report.html", "curves.png", "model/README.md", "lines.jsonl"):
        assert (whole / name).stat().st_size > 0, name
    summary = json.loads((whole / "summary.json").read_text())
    parts = [json.loads((whole / name / "summary.json").read_text()) for name in ("1-first", "2-second")]
    assert summary["method"] == "two_stages" and summary["recipe"] == "mine" and summary["steps"] == 8
    assert summary["seconds"] > sum(part["seconds"] for part in parts)
    assert summary["pairs"] == parts[1]["pairs"] and all(part["method"] == "dpo" for part in parts)
    first, second = weights(whole / "1-first/model"), weights(whole / "2-second/model")
    assert not all(first[name].equal(second[name]) for name in first)
    assert os.stat(whole / "model/adapter_model.safetensors").st_nlink == 2  # no second copy
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"1-first", "2-second"}


class Killed(BaseException):
    """Ends a run at once, and nothing is tidied up."""


def killed_in(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    training_step = base.AlignmentTrainer.training_step

    def stepping(self: Any, *given: Any) -> Any:
        if self.folder.name == stage and self.state.global_step + 1 == step:
            raise Killed
        return training_step(self, *given)

    monkeypatch.setattr(base.AlignmentTrainer, "training_step", stepping)


@pytest.mark.parametrize(
    ("stage", "step", "save"), [("1-first", 3, 2), ("2-second", 3, 2), ("2-second", 3, None)], ids=str
)
def test_killed_in_a_training_stage(
    stage: str, step: int, save: int | None, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from the newest checkpoint, or without one from the stage's beginning."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        killed_in(patch, stage, step)
        with pytest.raises(Killed):
            main(arguments(given, folder, *([f"training.save_steps={save}"] if save else [])))
    assert not (folder / "summary.json").exists()
    moved = folder.rename(tmp_path / "moved")  # the paths inside it are those of before
    taken = []
    original = base.AlignmentTrainer.training_step

    def counted(self: Any, *given: Any) -> Any:
        taken.append((self.folder.name, self.state.global_step + 1))
        return original(self, *given)

    monkeypatch.setattr(base.AlignmentTrainer, "training_step", counted)
    assert main([f"resume={moved}"]) == 0
    left = [("1-first", number) for number in range(1, 5)] if stage == "1-first" else []
    left += [("2-second", number) for number in range(1, 5)]
    assert taken == left[2 if save else 0 :]
    assert_same_end(moved, given / "whole")


def test_stopped_by_a_signal_between_stages_and_inside_one(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    add = two_stages.Counter

    def asked_in(lines: int) -> Callable[..., Any]:
        def counting(**counts: int) -> Any:
            rows = len((folder / "lines.jsonl").read_text().splitlines())
            monkeypatch.setattr(TERMINATION, "asked", rows + 1 >= lines)
            return add(**counts)

        return counting

    with monkeypatch.context() as patch:
        patch.setattr(two_stages, "Counter", asked_in(3))
        assert main(arguments(given, folder)) == 143
    assert "lines.jsonl: stopped; resume=" in capsys.readouterr().out
    assert len((folder / "lines.jsonl").read_text().splitlines()) == 3 and not (folder / "1-first").exists()
    monkeypatch.setattr(TERMINATION, "asked", False)
    training_step = base.AlignmentTrainer.training_step

    def stepping(self: Any, *given: Any) -> Any:
        monkeypatch.setattr(TERMINATION, "asked", self.folder.name == "1-first" and self.state.global_step == 1)
        return training_step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(base.AlignmentTrainer, "training_step", stepping)
        assert main([f"resume={folder}"]) == 143
    assert [entry.name for entry in (folder / "1-first/checkpoints").iterdir()] == ["checkpoint-2"]
    monkeypatch.setattr(TERMINATION, "asked", False)
    assert main([f"resume={folder}"]) == 0
    assert "lines.jsonl: done before" in capsys.readouterr().out
    assert_same_end(folder, given / "whole")


def test_stopped_while_it_is_measured(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps are taken, and are not taken again."""
    folder = tmp_path / "run"

    def stopped(*given: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "measure", stopped)
        assert main(arguments(given, folder)) == 143
    assert [entry.name for entry in (folder / "1-first/checkpoints").iterdir()] == ["checkpoint-4"]
    killed_in(monkeypatch, "1-first", 1)
    assert main([f"resume={folder}"]) == 0
    assert_same_end(folder, given / "whole")


def test_other_settings_are_refused(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = shutil.copytree(given / "whole", tmp_path / "run")
    for change in (
        "training.learning_rate=2e-3",
        "evaluation.prompts=4",
        "data.path=other.jsonl",
        "rollout.batch_size=4",
    ):
        assert main([f"resume={folder}", change]) == 2
        error = capsys.readouterr().err
        assert "not the same run any more" in error and change.split("=")[0] in error
    assert main([f"resume={tmp_path / 'nowhere'}", f"recipe={given / 'mine.yaml'}", *SETTINGS]) == 2
    assert "no such run folder" in capsys.readouterr().err
    with pytest.raises(UserError, match="processes: 1 -> 2"):
        check_settings(folder, stored(folder), 2, staged=True)
    assert main([f"resume={folder}", "training.save_steps=3"]) == 0  # nothing is done again
    assert_same_end(folder, given / "whole")


def stored(folder: Path) -> RunConfig:
    from alignment.launch.compose import Composer

    return Composer.create().config([f"resume={folder}"])


@pytest.fixture
def some(tmp_path: Path) -> Iterator[Callable[[], Stages]]:
    """Stages of one folder, as a new launch finds them."""
    from accelerate import PartialState
    from rich.console import Console

    launched = run.Launch([], PartialState(cpu=True), Console(quiet=True))
    yield lambda: Stages(RunConfig(output_dir=str(tmp_path)), tmp_path, launched)


def test_a_step_is_made_once(some: Callable[[], Stages], tmp_path: Path) -> None:
    made: list[str] = []

    def make(out: Path) -> dict[str, int]:
        made.append(out.name)
        out.write_text("here")
        return {"made": len(made)}

    assert some().step("a/one.txt", lambda out: out.parent.mkdir() or make(out)) == {"made": 1}
    again = some()
    assert again.step("a/one.txt", make) == {"made": 1} and again.step("two.txt", make) == {"made": 2}
    (tmp_path / "two.txt").unlink()  # what is gone is made again
    assert some().step("two.txt", make) == {"made": 3} and made == ["one.txt", "two.txt", "two.txt"]


@pytest.mark.parametrize("error", [UserError("no"), Interrupted()])
def test_a_step_that_failed_is_tried_again(error: Exception, some: Callable[[], Stages], tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        out.write_text("half")
        raise error

    with pytest.raises(type(error)):
        some().step("one.txt", fail)
    assert not (tmp_path / "stages.json").exists()
    assert some().step("one.txt", lambda out: out.read_text()) == "half"


def test_a_broken_list_of_what_is_done_is_named(some: Callable[[], Stages], tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text("{")
    with pytest.raises(UserError, match=r"stages\.json cannot be read: remove it"):
        some()


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old/inside").mkdir(parents=True)
    (tmp_path / "old/inside/file").write_text("content")
    (tmp_path / "new").mkdir()

    def refuse(*given: Any) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(stages.os, "link", refuse)
    stages._link_files(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new/inside/file").read_text() == "content"
    assert os.stat(tmp_path / "new/inside/file").st_nlink == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "old"]


@pytest.mark.slow
def test_two_processes_make_a_file_together_and_go_on(given: Path, tmp_path: Path) -> None:
    """Killed while the file is made, and in the second training run; the file is the one of one process."""
    folder, program = tmp_path / "run", "tests/launch/two_stages.py"
    command = [program, *arguments(given, folder, "training.save_steps=2")]
    done = launch(command, 2, RECORD=str(tmp_path / "first"), STOP="lines")
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert (folder / "lines.jsonl").read_text().splitlines() == ['{"line": 0}', '{"line": 1}']
    done = launch([program, f"resume={folder}"], 2, RECORD=str(tmp_path / "second"), STOP="kill:3")
    assert done.returncode == -signal.SIGKILL and not (folder / "2-second").exists(), done.stderr[-3000:]
    done = launch([program, f"resume={folder}"], 2, RECORD=str(tmp_path / "third"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "lines.jsonl").read_bytes() == (given / "whole/lines.jsonl").read_bytes()
    for rank in (0, 1):
        rows = [json.loads(line) for line in (tmp_path / f"third/rank-{rank}.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [3, 4, *range(1, 5)]
    assert json.loads((folder / "summary.json").read_text())["steps"] == 8
