"""`align doctor`: what it finds wrong, what it says of a recipe, and the launch line. In process, without tracing."""

from __future__ import annotations

import io
import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from alignment import disk
from alignment.cli import app
from alignment.cli_doctor import render
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.launch import doctor
from alignment.launch.compose import Composer
from alignment.launch.doctor import Finding, Machine, launch_line
from alignment.memory import Estimate, passes
from alignment.memory.advice import Advice
from tests.launching import ROOT


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(passes, "activations", lambda settings, config, units, layout: 10**8)
    monkeypatch.setattr(passes, "sampling", lambda settings, config, wanted: (10**7, 10**6))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def called(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words])


def finding(findings: list[Finding], name: str) -> Finding:
    return next(each for each in findings if each.name == name)


def test_the_machine_alone() -> None:
    done = called()
    assert done.exit_code == 0, done.output
    for name in ("Python", "torch", "accelerate", "bitsandbytes", "bfloat16", "free disk"):
        assert name in done.output
    assert f"launch configurations: {ROOT / 'configs' / 'launch'}" in done.output
    assert max(map(len, done.output.splitlines()[:-2])) <= 80


def test_a_recipe_that_fits() -> None:
    done = called("recipe=dpo", "model=tiny", "--gpus", "1")
    assert done.exit_code == 0, done.output
    assert "activations of the largest micro-batch" in done.output and "0.10" in done.output
    assert "configs/launch/gpu.yaml" in done.output and "to make it fit" not in done.output
    table = [line for line in done.output.splitlines() if not line.startswith("launch: ")]
    assert max(map(len, table)) <= 80


@pytest.mark.slow
def test_a_recipe_that_does_not_fit_says_what_to_change() -> None:
    done = called("recipe=dpo", "model=smollm2-135m", "peft=none", "--gpus", "1", "--gpu-memory", "2")
    assert done.exit_code == 1
    assert "WRONG" in done.output and "peft=lora" in done.output and "…" not in done.output


def test_settings_are_not_cut_at_80_columns() -> None:
    found = doctor.Diagnosis([], Machine(1, 1), Estimate(1, 0, 0, 1, 1, 1, 0, 0, 1), line="accelerate launch")
    found.advice = [
        Advice("training.gradient_checkpointing=true", 10**10, 10**11, "about a third of the time, or more")
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    render(found, console)
    assert "training.gradient_checkpointing=true" in console.export_text()


def test_json() -> None:
    done = called("recipe=p3o", "model=tiny", "--json", "--gpus", "4", "--gpu-memory", "80")
    found = json.loads(done.output)
    assert done.exit_code == 0 and found["wrong"] is False
    memory = found["memory"]
    assert memory["gathered"] == memory["gradients"] > 0  # DDP's buckets
    parts = ("runtime", "weights", "reference", "others", "optimiser", "gathered", "gradients", "activations")
    assert memory["training"] == memory["total"] == sum(memory[part] for part in parts)
    assert "ddp.yaml --num_processes 4 -m alignment.launch recipe=p3o model=tiny" in found["launch"]
    assert found["machine"] == {"gpus": 4, "memory": 80 * 10**9}


@pytest.mark.parametrize(
    ("words", "says"),
    [(["recipe=nosuch"], "unknown recipe 'nosuch'"), (["dpo"], "dpo: settings are written key=value")],
)
def test_bad_input(words: list[str], says: str) -> None:
    done = called(*words)
    assert isinstance(done.exception, UserError) and says in str(done.exception)  # exit code 2, by alignment.cli.main


def test_an_old_or_missing_library_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    has: dict[str, str] = {"torch": "1.0", "transformers": "99.0", "accelerate": "1.14"}

    def version(name: str) -> str:
        if name not in has:
            raise PackageNotFoundError(name)
        return has[name]

    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=2.11", "transformers>=5.20.2", "accelerate>=1.14"])
    monkeypatch.setattr(doctor, "version", version)
    found = doctor.versions()
    assert finding(found, "torch").state == "wrong" and "torch>=2.11" in finding(found, "torch").mend
    assert finding(found, "peft").state == "wrong"  # not installed
    assert finding(found, "accelerate").state == finding(found, "transformers").state == "ok"
    assert finding(found, "deepspeed").state == "note"


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(disk, "free", lambda folder: 10**6)
    assert finding(doctor.places(None, 10**6), "free disk").state == "ok"
    assert finding(doctor.places(None, 10**6 + 1), "free disk").state == "wrong"
    (tmp_path / "file").write_text("")

    def refuse(**options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    found = finding(doctor.places(RunConfig(output_dir=str(tmp_path / "new" / "run")), 0), "output_dir")
    assert found.state == "wrong" and "Permission denied" in found.value
    assert not (tmp_path / "new").exists()


def test_launch_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Composer.create().config(["recipe=dpo", "model=tiny"])
    words = ["recipe=dpo", "data.path=my data.jsonl"]
    assert launch_line(config, words, Machine(0, 1), "ddp").endswith(
        "cpu.yaml -m alignment.launch recipe=dpo 'data.path=my data.jsonl'"
    )
    assert "fsdp2_lora.yaml --num_processes 8 " in launch_line(config, words, Machine(8, 1), "fsdp2")
    config.peft.method = "none"
    assert "fsdp2.yaml --num_processes 8 " in launch_line(config, words, Machine(8, 1), "fsdp2")
    monkeypatch.chdir(ROOT)
    assert launch_line(config, words[:1], Machine(1, 1), "ddp") == (
        "accelerate launch --config_file configs/launch/gpu.yaml train.py recipe=dpo"
    )
