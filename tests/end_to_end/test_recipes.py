"""Every recipe, a few steps to its end on `tiny`: the run folder is whole and loads with plain libraries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alignment.evaluation.export import export
from alignment.launch.entry import main
from tests.end_to_end.data import write_pairs
from tests.launching import launch

FEW = ["training.max_steps=6", "evaluation.prompts=8", "evaluation.max_new_tokens=16", "data.eval_limit=24"]
FILES = ["before.json", "config.yaml", "curves.png", "metrics.jsonl", "report.html", "samples.jsonl", "summary.json"]


def check(run: Path, recipe: str = "dpo", unit: str | None = "pairs") -> dict:
    """The run folder's contract; returns the summary."""
    for name in FILES:
        assert (run / name).stat().st_size > 0, name
    assert (run / "model" / "README.md").is_file()
    summary = json.loads((run / "summary.json").read_text())
    score = summary["score"]
    assert score["prompts"] == 8 and score["ci95"][0] <= score["difference"] <= score["ci95"][1]
    assert score["difference"] == pytest.approx(score["after"] - score["before"])
    if unit:
        assert summary[unit]["n"] == 24 and 0 <= summary[unit]["accuracy"] <= 1
    assert summary["steps"] == 6 and summary["recipe"] == recipe and summary["seed"] == 3
    assert {"mean", "se"} <= summary["kl"].keys() and summary["fluency"]["before"] < 0
    assert summary["length"]["before"] <= 16 and summary["tokens_per_second"] > 0 and summary["peak_memory_mb"] > 0
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().split("\n")[:-1]]
    assert len(samples) == 8 and all(sample["prompt"] for sample in samples)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if "loss" in row] == [1, 2, 3, 4, 5, 6]
    return summary


def test_dpo_in_process_and_its_model_loads_with_plain_peft(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert main(["recipe=dpo", "model=tiny", "seed=3", *FEW, f"output_dir={run}"]) == 0
    check(run)
    printed = capsys.readouterr().out
    assert "before" in printed and "95 % interval" in printed and "report.html" in printed

    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model = AutoPeftModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], return_tensors="pt", return_dict=True)
    trained = model(**ids).logits
    with model.disable_adapter():
        assert not torch.equal(model(**ids).logits, trained)

    assert main(["recipe=dpo", "model=tiny", *FEW, f"output_dir={run}"]) == 2  # it would write over the first run
    assert "is not empty" in capsys.readouterr().err


def test_kto_in_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert main(["recipe=kto", "model=tiny", "seed=3", *FEW, f"output_dir={run}"]) == 0
    assert check(run, "kto", "answers")["data"]["train"]["answers"] > 200
    assert "held-out answer accuracy" in capsys.readouterr().out


def check_ranking(run: Path, recipe: str) -> dict:
    """The contract of a run that trains a model to rank answers."""
    for name in [*(name for name in FILES if name != "samples.jsonl"), "ranking.png", "model/scorer.json"]:
        assert (run / name).stat().st_size > 0, name
    summary = json.loads((run / "summary.json").read_text())
    ranking = summary["ranking"]
    assert ranking["pairs"] == 24 and ranking["ci95"][0] <= ranking["difference"] <= ranking["ci95"][1]
    assert ranking["difference"] == pytest.approx(ranking["after"] - ranking["before"])
    assert summary["recipe"] == recipe and summary["steps"] == 6 and "score" not in summary
    assert 0 <= summary["calibration"]["ece"] <= 0.5 and sum(b["n"] for b in summary["calibration"]["bins"]) == 24
    assert sum(quarter["n"] for quarter in summary["by_length"]) == 24
    return summary


def test_reward_in_process_with_a_further_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, exam = tmp_path / "run", write_pairs(tmp_path / "exam.jsonl", count=12)
    words = ["recipe=reward", "model=tiny", "seed=3", *FEW, f"evaluation.judge_sets=[{exam}]", f"output_dir={run}"]
    assert main(words) == 0
    summary = check_ranking(run, "reward")
    assert summary["judge_sets"][str(exam)]["n"] == 12
    printed = capsys.readouterr().out
    assert "held-out pairs" in printed and "exam.jsonl" in printed  # a narrow terminal wraps the labels
    page = (run / "report.html").read_text()
    assert "held-out pairs ranked right" in page and "ranked right: exam.jsonl" in page

    assert main(["recipe=reward", "model=tiny", "evaluation.judge_sets=[nowhere.jsonl]", f"output_dir={run}2"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_sft_in_process(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    assert main(["recipe=sft", "model=tiny", "seed=3", *FEW, f"output_dir={run}"]) == 0
    summary = check(run, "sft", None)
    imitation = summary["imitation"]
    assert imitation["prompts"] == 24 and imitation["difference"] == pytest.approx(
        imitation["after"] - imitation["before"]
    )
    assert imitation["after"] < imitation["before"]
    assert "held-out nats per token" in capsys.readouterr().out


ONLINE = ["expert_iteration", "grpo", "nash_md", "online_dpo", "p3o", "ppo", "reinforce", "rloo"]
SMALL = ["rollout.prompts=8", "rollout.max_new_tokens=12", "training.batch_size=4"]


@pytest.mark.parametrize(
    "recipe",
    [name if name in ("nash_md", "p3o", "ppo") else pytest.param(name, marks=pytest.mark.slow) for name in ONLINE],
)
def test_online_recipes_in_process(recipe: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main([f"recipe={recipe}", "model=tiny", "seed=3", *FEW, *SMALL, f"output_dir={run}"]) == 0
    check(run, recipe, None)
    assert (run / "rollouts.jsonl").stat().st_size > 0


@pytest.mark.timeout(1200)
def test_two_processes_run_every_trainer_to_its_end(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    program = [
        "train.py",
        "-m",
        "recipe=dpo,kto,nash_md,preference_model,reward,sft",
        "model=tiny",
        "seed=3",
        *FEW,
        f"output_dir={sweep}",
    ]
    done = launch(program, processes=2, timeout=1100)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = check(sweep / "0_recipe=dpo")
    assert summary["data"]["train"]["pairs"] > 100
    check(sweep / "1_recipe=kto", "kto", "answers")
    check(sweep / "2_recipe=nash_md", "nash_md", None)
    check_ranking(sweep / "3_recipe=preference_model", "preference_model")
    check_ranking(sweep / "4_recipe=reward", "reward")
    check(sweep / "5_recipe=sft", "sft", None)
    assert done.stdout.count("score: plain_words") == 4  # rank 0 alone speaks


@pytest.mark.slow
def test_two_processes_run_the_stages_of_pit_to_their_end(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    program = ["train.py", "-m", "recipe=pit,pit_gap,pit_sft", "model=tiny", "seed=3", *FEW, f"output_dir={sweep}"]
    done = launch(program, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("0_recipe=pit", "2_recipe=pit_sft"):
        summary = json.loads((sweep / name / "summary.json").read_text())
        counts = [kind["score"]["answers"] for kind in summary["improved"].values()]
        assert sum(counts) == 8 and summary["score"]["prompts"] == 8
    gaps = check_ranking(sweep / "1_recipe=pit_gap", "pit_gap")["gaps"]
    assert gaps["wl > lw"]["pairs"] == 24 and 0 <= gaps["all five"]["after"] <= 1


@pytest.mark.slow
def test_dpo_on_the_embedded_model_and_its_export(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = launch(["train.py", "recipe=dpo", "seed=3", *FEW, f"output_dir={run}"], timeout=590, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr[-3000:]
    summary = check(run)
    assert summary["model"] == "smollm2-135m" and summary["layout"] == "shared"
    assert -2 < summary["fluency"]["before"] < -0.5  # nats per token of a fluent model's own samples

    from transformers import AutoModelForCausalLM

    assert (
        sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(export(run, tmp_path / "plain")).parameters())
        > 1.3e8
    )
