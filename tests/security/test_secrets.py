"""Keys come from the environment, and go nowhere but into the request."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from alignment.launch.entry import main
from tests.commands import align, refused
from tests.feedback.fault_server import Answer, FaultServer
from tests.launching import launch

KEY = "planted-key-9f3c"
VARIABLES = ("MY_JUDGE_KEY", "OPENAI_API_KEY", "WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TRACKIO_TOKEN")
KEYS = {name: f"{KEY}-{name.lower()}" for name in VARIABLES}


def holding(text: str, folder: Path) -> list[str]:
    """The files under `folder` that hold `text`."""
    files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    assert files
    return [str(file) for file in files if file.is_file() and text.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    "words",
    [
        ["feedback=judge_served", "++feedback.api_key=sk-secret"],
        ["feedback=judge_served", "feedback.base_url=https://me:sk-secret@example.org/v1"],
        ["feedback=judge_served", "feedback.api_key_env=sk-secret"],
        ["feedback=judge_served", "++feedback.extra={password: sk-secret}"],
        ["evaluation.score={name: score_served, api_key: sk-secret}"],
        ["data.path=https://me:sk-secret@example.org/rows.jsonl"],
    ],
    ids=str,
)
def test_a_key_among_settings_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipe=dpo", "model=tiny", "output_dir=out", *words]) == 2
    found = capsys.readouterr()
    assert "environment" in found.err and "sk-secret" not in found.err + found.out
    assert not Path("out").exists()


def test_nor_in_a_recipe_or_in_a_commands_feedback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump({"feedback": {"name": "judge_served", "api_key": "sk-secret"}}))
    assert main(["recipe=mine.yaml", "model=tiny"]) == 2
    assert "feedback.api_key: settings are written down" in capsys.readouterr().err
    Path("judge.yaml").write_text("name: judge_served\napi_key: sk-secret\n")
    Path("answers.jsonl").write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n")
    error = refused(monkeypatch, capsys, "label", "answers.jsonl", "out.jsonl", "feedback=judge.yaml")
    assert "hold no keys" in error and "sk-secret" not in error


def test_a_served_judges_key_stays_in_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("answers.jsonl").write_text(json.dumps({"prompt": "Why?", "completion": "So."}) + "\n")
    for status in (200, 401):
        server = FaultServer(lambda number, body, status=status: Answer("Good.\nLINE 7", status=status))
        words = [f"feedback.base_url={server.url}", "feedback.model=m", "feedback.api_key_env=MY_JUDGE_KEY"]
        out = f"out-{status}.jsonl"
        try:
            code = align(monkeypatch, "label", "answers.jsonl", out, "feedback=score_served", *words)
        finally:
            server.close()
        assert code == (0 if status == 200 else 2)
        assert server.keys and all(KEYS["MY_JUDGE_KEY"] in str(key) for key in server.keys)
    found = capsys.readouterr()
    assert "MY_JUDGE_KEY" in found.err and KEY not in found.out + found.err
    assert Path("cache/answers.sqlite3").is_file() and holding(KEY, tmp_path) == []


@pytest.mark.slow
def test_a_run_with_a_judge_and_trackers_holds_no_key(tmp_path: Path) -> None:
    for package in ("openai", "wandb", "tensorboard", "trackio"):
        pytest.importorskip(package)
    server = FaultServer(lambda number, body: Answer(f"{len(KEY)}.\nLINE 7"))
    words = ["recipe=dpo", "model=tiny", f"output_dir={tmp_path}/run", "training.max_steps=2", "training.save_steps=1"]
    words += ["evaluation.prompts=3", "evaluation.max_new_tokens=4", "data.limit=8", "data.eval_limit=4"]
    words += ["training.report_to=[wandb,tensorboard,trackio]"]
    score = f"name: score_served, base_url: '{server.url}', model: m, api_key_env: MY_JUDGE_KEY"
    homes = {"HOME": str(tmp_path / "home"), "ALIGN_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "offline"}
    try:
        done = launch(["train.py", *words, f"evaluation.score={{{score}}}"], timeout=560, **KEYS, **homes)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr[-3000:]
    assert server.keys and all(KEYS["MY_JUDGE_KEY"] in str(key) for key in server.keys)
    assert KEY not in done.stdout + done.stderr and holding(KEY, tmp_path) == []
    made = {"config.yaml", "report.html", "summary.json", "model/README.md", "checkpoints", "wandb", "tensorboard"}
    assert all((tmp_path / "run" / name).exists() for name in made)
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert r"score\_served (m)" in card and "| everyday | Apache-2.0 |" in card
