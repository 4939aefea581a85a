"""What can go wrong with an online run: one clear line or a counted skip, and a run folder that is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.launch.entry import main

FEW = ["model=tiny", "training.max_steps=2", "rollout.prompts=4", "training.batch_size=4", "rollout.max_new_tokens=6"]
QUIET = ["evaluation.prompts=4", "evaluation.max_new_tokens=6"]


def test_repeated_and_empty_prompts_are_counted_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [{"prompt": text} for text in ("Why?", "Who?", "Why?", "Where is it?", "   ", "", "When?", "How?")]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"data.path={file}", f"data.eval_path={file}", f"output_dir={tmp_path / 'run'}"]
    assert main(["recipe=p3o", *FEW, *QUIET, *given]) == 0
    counts = json.loads((tmp_path / "run" / "summary.json").read_text())["data"]["train"]
    assert counts["prompts"] == 5 and counts["left_out_repeated"] == 1 and counts["skipped"] == 2
    printed = capsys.readouterr().out
    assert "2 skipped" in printed and "1 left out repeated" in printed


def test_answers_that_never_end_are_cut_and_counted(tmp_path: Path) -> None:
    run = tmp_path / "run"  # a completion of 2 tokens comes to no end
    words = ["rollout.max_new_tokens=2", "rollout.missing_end_penalty=1.0", f"output_dir={run}"]
    assert main(["recipe=p3o", *FEW, *QUIET, *words]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["truncated"] for row in rows if "loss" in row] == [1.0, 1.0]
    assert (run / "summary.json").is_file()


@pytest.mark.parametrize("recipe", ["p3o", "nash_md"])
def test_a_reference_of_another_vocabulary_is_refused(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(other).save_pretrained(tmp_path / "other")
    words = [f"reference.path={tmp_path / 'other'}", f"output_dir={tmp_path / 'run'}"]
    assert main([f"recipe={recipe}", *FEW, *QUIET, *words]) == 2
    error = capsys.readouterr().err
    assert "has a vocabulary of 64 tokens, the policy one of" in error and len(error.strip().splitlines()) == 1
