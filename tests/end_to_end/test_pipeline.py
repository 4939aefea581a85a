"""Sample, label, train and audit as a user does: scripts/pipeline.sh on `tiny`, and what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.data.readers import load_examples
from alignment.data.views import pairs
from alignment.feedback.rules import PlainWords
from tests.commands import align
from tests.launching import ROOT, environment

FEW = ["training.max_steps=3", "training.learning_rate=1e-3", "evaluation.prompts=4", "evaluation.max_new_tokens=8"]


@pytest.mark.slow
def test_sample_label_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = [str(ROOT / "scripts" / "pipeline.sh"), str(tmp_path / "run"), *FEW, "data.eval_limit=8"]
    settings = environment(PATH=path, MODEL="tiny", PROMPTS="6", FEEDBACK="plain_words")
    done = subprocess.run(script, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]

    run = tmp_path / "run"
    answers = load_examples(str(run / "answers.jsonl")).examples
    labelled = load_examples(str(run / "labelled.jsonl")).examples
    assert len(answers) == len(labelled) == 6 and all(len(example.responses) > 1 for example in answers)
    assert all(len(example.preferences) == 1 for example in labelled)
    rule = PlainWords()
    for pair in pairs(labelled)[0]:
        assert rule.of(pair.chosen[0]["content"]) > rule.of(pair.rejected[0]["content"])
    summary = json.loads((run / "dpo" / "summary.json").read_text())
    assert summary["steps"] == 3 and summary["data"]["train"]["pairs"] == len(pairs(labelled)[0])
    assert "pairs compared" in done.stdout and "labelling: 6 of 6" in done.stderr

    # The trained adapter is a model to sample from, beside the one that it began with.
    monkeypatch.chdir(run)
    both = [
        "--model",
        "tiny",
        "--model",
        "dpo",
        "-n",
        "1",
        "--max-new-tokens",
        "6",
        "--limit",
        "3",
        "--dtype",
        "float32",
    ]
    assert align(monkeypatch, "sample", "everyday", "both.jsonl", *both, "--split", "test") == 0
    rows = [json.loads(line) for line in Path("both.jsonl").read_text().splitlines()]
    assert all({answer["source"] for answer in row["responses"]} <= {"tiny", "dpo"} for row in rows) and len(rows) == 3
    assert align(monkeypatch, "label", "both.jsonl", "preferred.jsonl", "feedback=plain_words", "--as", "prefer") == 0
    assert align(monkeypatch, "judge", "audit", "preferred.jsonl", "feedback=plain_words", "--again", "2") == 0
    shown = capsys.readouterr().out
    agreement = next(line for line in shown.splitlines() if line.strip().startswith("agreement with people"))
    assert "100.0 %" in agreement  # the rule agrees with its own labels
