"""The command line from the outside: exit codes, what is printed where, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.errors import Interrupted, UserError
from alignment.launch import entry
from alignment.launch.assets import assets_root

Runs = list[tuple[Any, list[str]]]


def test_runs_the_composed_configuration(runs: Runs, tmp_path: Path) -> None:
    assert entry.main(["recipe=dpo", "model=tiny", "seed=5"]) == 0
    [(config, overrides)] = runs
    assert (config.recipe, config.model.path, config.seed) == ("dpo", "tiny", 5)
    assert overrides == ["recipe=dpo", "model=tiny", "seed=5"]
    assert list(tmp_path.iterdir()) == []  # no outputs/, no .hydra/


def test_options_and_overrides_in_any_order(runs: Runs) -> None:
    assert entry.main(["seed=5", "--config-dir", str(assets_root() / "configs"), "recipe=dpo"]) == 0
    assert runs[0][0].seed == 5


def test_cfg_prints_and_does_not_run(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["recipe=dpo", "--cfg", "job", "data.limit=${seed}", "seed=9"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["recipe"], printed["data"]["limit"], printed["seed"]) == ("dpo", "${seed}", 9)
    assert entry.main(["recipe=dpo", "--cfg", "job", "--resolve", "data.limit=${seed}", "seed=9"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["limit"] == 9
    assert runs == []


def test_help_lists_recipes_groups_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--help"], run="python train.py") == 0
    text = capsys.readouterr().out
    recipe = yaml.safe_load((assets_root() / "recipes" / "dpo.yaml").read_text())
    assert any(line.split()[:1] == ["dpo"] and recipe["description"][:40] in line for line in text.splitlines())
    assert "smollm2-135m, tiny" in text
    assert "lora, none" in text
    assert "accelerate launch train.py recipe=dpo" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_works_with_a_broken_recipe_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "broken.yaml").write_text("a: [")
    assert entry.main(["--help", "--config-dir", str(tmp_path)]) == 0
    assert "broken" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from alignment.launch.entry import main; main(['--help'])\n"
        "heavy = {'torch', 'transformers', 'hydra', 'omegaconf', 'rich', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=assets_root())


@pytest.mark.parametrize(
    ("argv", "fragment"),
    [
        (["recipe=dpo", "--frobnicate"], "--frobnicate"),
        (["recipe=dpo", "--cfg", "hydra"], "hydra"),
        (["recipe=dpo", "loss.betta=1"], "loss.beta"),
        (["-m", "recipe=dpo", "seed=1,x"], "seed=x"),
        (["-m", "recipe=dpo,dpoo"], "dpoo"),
    ],
)
def test_mistakes_exit_2_with_one_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], fragment: str
) -> None:
    assert entry.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert fragment in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert runs == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (UserError("the disk is full"), 2, "error: the disk is full\n"),
        (Interrupted(), 143, ""),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_how_a_run_ends(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: int,
    err: str,
) -> None:
    def fail(config: Any, overrides: list[str]) -> None:
        raise raised

    monkeypatch.setattr(sys.modules["alignment.launch.run"], "run", fail)
    assert entry.main(["recipe=dpo"]) == code
    assert capsys.readouterr().err == err


def test_a_defect_keeps_its_traceback(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Any, overrides: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["alignment.launch.run"], "run", fail)
    with pytest.raises(ZeroDivisionError):
        entry.main(["recipe=dpo"])


def test_traceback_when_asked_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert entry.main(["recipe=dpoo", "traceback=true"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("ALIGN_TRACEBACK", "1")
    assert entry.main(["recipe=dpoo"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_other_ranks_speak_only_for_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "RANK_0_FIRST_SECONDS", 0.0)
    monkeypatch.setenv("RANK", "1")
    assert entry.main(["recipe=dpoo"]) == 2
    assert capsys.readouterr().err.startswith("error on rank 1: ")


def test_train_py_from_another_folder(tmp_path: Path) -> None:
    """One real process: the script, not the module, without an installed package and with nothing left behind."""
    script = assets_root() / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), "recipe=dpo", "loss.betta=1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown key 'loss.betta': did you mean loss.beta?\n"
    assert list(tmp_path.iterdir()) == []
