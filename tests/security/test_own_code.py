"""Whose Python runs: what the command line names, and nothing that a file alone names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from alignment.config import ModelConfig
from alignment.errors import UserError
from alignment.evaluation.export import export
from alignment.imports import import_named, only_named_on
from alignment.launch.compose import Composer
from alignment.launch.entry import main
from alignment.models.loading import BUILTIN_FOLDER, load_model
from alignment.trainers.loss_settings import build_loss
from tests.commands import align, refused

EVIL = "open('ran', 'w').close()\n\n\ndef run(prompt, completion, context):\n    return 0.0\n"
RECIPES = [
    {"feedback": {"name": "evil.py:run"}},
    {"feedback": {"name": "both_orders", "of": {"name": "evil.py:run"}}},
    {"evaluation": {"score": {"name": "evil.py:run"}}},
    {"data": {"path": "everyday", "format": "evil.py"}},
]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with evil.py, which is the current one and from which Python imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "place", "named"),
    [
        (["loss.name=mine.py:f"], "mine.py", True),
        (["allow=[mine.py]"], "mine.py", True),
        (["allow=[a.py,'mine.py', os]"], "mine.py", True),
        (["--allow", "mine.py", "label"], "mine.py", True),
        (["--allow=os"], "os", True),
        (["allow=[a.py,os]"], "os", True),
        (["feedback={name: mine.py:f}"], "mine.py", True),
        (["--format", "mine.py"], "mine.py", True),
        (["--judge", "good=package.mine:f"], "package.mine", True),
        (["recipe=mine.py.yaml"], "mine.py", False),
        (["recipe=not_mine.py:f"], "mine.py", False),
        (["data.path=os"], "os", False),
        (["loss.name=package.mine:f"], "mine", False),
        (["disallow=[mine.py]"], "os", False),
        ([], "mine.py", False),
    ],
)
def test_what_a_command_line_names(words: list[str], place: str, named: bool, tmp_path: Path) -> None:
    with only_named_on(words, "name {place}"), pytest.raises(UserError) as found:
        import_named(place, "x")
        raise UserError("imported")
    assert ("the command line does not" in str(found.value)) != named
    with pytest.raises(UserError, match=r"no file nowhere\.py"):  # Python itself may name anything
        import_named("nowhere.py", "x")


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_recipe_from_elsewhere_runs_nothing(
    recipe: dict[str, object], elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"method": "dpo", "model": {"path": "tiny"}, **recipe}))
    assert main(["recipe=mine.yaml", "output_dir=out"]) == 2
    assert "add allow=[evil" in capsys.readouterr().err
    assert not (elsewhere / "ran").exists()


@pytest.mark.parametrize("loss", [{"name": "evil.py:run"}, {"name": "evil:run"}, {"terms": [{"name": "evil.py:run"}]}])
def test_nor_does_its_loss(loss: dict[str, object], elsewhere: Path) -> None:
    """A loss is imported when the trainer is built."""
    with only_named_on(["recipe=mine.yaml"], "add {place}"), pytest.raises(UserError, match="add evil"):
        build_loss(loss)
    assert not (elsewhere / "ran").exists()


@pytest.mark.parametrize("words", [["recipe=mine.yaml", "allow=[evil.py]"], ["recipe=dpo", "feedback=evil.py:run"]])
def test_what_the_command_line_names_is_run(words: list[str], elsewhere: Path) -> None:
    (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"method": "dpo", "feedback": {"name": "evil.py:run"}}))
    with only_named_on(words, "add {place}"):
        Composer.create().config([*words, "model=tiny"])
    assert (elsewhere / "ran").exists()


def test_a_recipe_cannot_allow(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "mine.yaml").write_text("allow: [evil.py]\nfeedback: {name: 'evil.py:run'}\n")
    assert main(["recipe=mine.yaml"]) == 2
    assert "allow stands on the command line alone" in capsys.readouterr().err
    (elsewhere / "run").mkdir()
    stored = {"allow": ["evil.py"], "model": {"path": "tiny"}, "data": {"path": "everyday", "format": "evil.py"}}
    (elsewhere / "run" / "config.yaml").write_text(yaml.safe_dump(stored))
    assert main(["resume=run"]) == 2
    assert "add allow=[evil.py]" in capsys.readouterr().err
    assert not (elsewhere / "ran").exists()


def test_other_commands_ask_for_allow(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "answers.jsonl").write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n")
    (elsewhere / "judge.yaml").write_text("name: evil.py:run\n")
    words = ["label", "answers.jsonl", "out.jsonl", "feedback=judge.yaml"]
    assert "align --allow evil.py" in refused(monkeypatch, capsys, *words)
    assert not (elsewhere / "ran").exists()
    assert align(monkeypatch, "--allow", "evil.py", *words) == 0
    assert (elsewhere / "ran").exists()


@pytest.mark.parametrize("target", ["_target_", "loss._target_"])
def test_targets_are_no_settings(target: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is instantiated by a dotted name: `_target_` is an unknown key, or an unknown setting of the loss."""
    assert main(["recipe=dpo", "model=tiny", f"+{target}=evil.run", "training.max_steps=0"]) == 2
    assert not (elsewhere / "ran").exists() and capsys.readouterr().err


def test_the_environment_is_no_setting(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLANTED", "planted-7c1e")
    for text in ("${oc.env:PLANTED}", "${${description}.env:PLANTED}", "x${oc.env:NOWHERE,${oc.env:PLANTED}}"):
        (elsewhere / "mine.yaml").write_text(yaml.safe_dump({"description": "oc", "model": {"name": text}}))
        assert main(["recipe=mine.yaml", "--cfg", "job", "--resolve"]) == 2
        found = capsys.readouterr()
        assert "do not read the environment" in found.err and "planted-7c1e" not in found.out + found.err
    assert main(["recipe=dpo", "--cfg", "job", "description=${oc.env:PLANTED}"]) == 0  # as it stands
    assert "planted-7c1e" not in capsys.readouterr().out
    (elsewhere / "judge.yaml").write_text("name: regex\npattern: ${oc.env:PLANTED}\n")
    (elsewhere / "answers.jsonl").write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n")
    error = refused(monkeypatch, capsys, "label", "answers.jsonl", "out.jsonl", "feedback=judge.yaml")
    assert "environment" in error and "planted-7c1e" not in error


@pytest.fixture
def with_code(elsewhere: Path) -> Path:
    """A model folder that wants its own configuration class to be run."""
    shutil.copytree(BUILTIN_FOLDER / "tiny", elsewhere / "model")
    settings = json.loads((elsewhere / "model" / "config.json").read_text())
    settings |= {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.Own"}}
    (elsewhere / "model" / "config.json").chmod(0o644)
    (elsewhere / "model" / "config.json").write_text(json.dumps(settings))
    code = "from transformers import PretrainedConfig\nopen('ran', 'w').close()\n\n\nclass Own(PretrainedConfig): ...\n"
    (elsewhere / "model" / "code.py").write_text(code)
    return elsewhere / "model"


def test_a_models_own_code_is_not_run(with_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(with_code.parent / "modules"))
    with pytest.raises(UserError, match="cannot load the configuration"):
        load_model(ModelConfig(path=str(with_code)))
    with only_named_on(["recipe=mine.yaml"], ""), pytest.raises(UserError, match=r"add model\.trust_remote_code=true"):
        load_model(ModelConfig(path=str(with_code), trust_remote_code=True))
    (with_code.parent / "config.yaml").write_text("model: {trust_remote_code: true}\n")
    with pytest.raises(UserError):  # the run's own wish is none
        export(with_code.parent, with_code.parent / "out", "float16")
    assert not Path("ran").exists()


def test_a_recipes_trust_needs_the_command_lines(elsewhere: Path) -> None:
    (elsewhere / "mine.yaml").write_text("model: {path: tiny, trust_remote_code: true}\n")
    config = Composer.create().config(["recipe=mine.yaml"])
    with only_named_on(["recipe=mine.yaml"], ""), pytest.raises(UserError, match="command line"):
        load_model(config.model)
    with only_named_on(["recipe=mine.yaml", "model.trust_remote_code=true"], ""):
        assert load_model(config.model)
