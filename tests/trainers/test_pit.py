"""PIT's stage 3: what a phase improves, what the feedback is told, the switch, resume, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.data.views import Improvement, ReferenceAnswer
from alignment.errors import UserError
from alignment.evaluation.improved import ImprovedEndOfRun, by_kind
from alignment.feedback.adapters import Function
from alignment.feedback.gap import RewardGap
from alignment.launch.entry import main
from alignment.trainers.pit import PIT, UPDATES, pit_trainer
from alignment.trainers.pit_sft import ImproverTrainer
from tests.trainers.online_runs import config, distance, references, short, weights
from tests.trainers.pairs import some_pairs


class Noted:
    """A gap by length that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, str, str]] = []

    def gap(self, prompts: Any, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        self.asked += zip(prompts, candidates, references, strict=True)
        return [(len(old) - len(new)) / 10 for new, old in zip(candidates, references, strict=True)]

    def score(self, prompts: Any, completions: Sequence[str], context: Any = None) -> list[float]:
        return self.gap(prompts, completions, [row["reference"] for row in context])


def run_of(folder: Path, steps: int = 6, feedback: Any = None, data: Any = None, loss: str = "p3o", **pit: Any) -> Any:
    settings = config("pit", steps)
    settings.loss = {"name": loss}
    for key, value in pit.items():
        setattr(settings.pit, key, value)
    given = feedback or Function(short)
    return pit_trainer(config=settings, train=data or references(), folder=folder, feedback=given)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


def noted(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("settings", "policys"),
    [
        ({}, [0, 0, 0, 0, 1, 1]),  # two steps a phase; half of three phases, rounded up
        ({"references": "data"}, [0] * 6),
        ({"references": "policy"}, [1] * 6),
        ({"references": "mixed"}, [0, 0, 1, 1, 0, 0]),
        ({"switch": "epoch", "switch_at": 0.4}, [0, 0, 1, 1, 1, 1]),  # of 12 answers, 4 a phase
    ],
)
def test_whose_answers_are_improved(settings: dict[str, Any], policys: list[int], tmp_path: Path) -> None:
    run = run_of(tmp_path, **settings)
    run.train()
    assert [row["policy_references"] for row in rows(tmp_path)] == policys
    known = {answer.text for answer in references()}
    seen = [(row["phase"], row["reference"] in known) for row in noted(tmp_path)]
    assert all(is_known != bool(policys[2 * phase]) for phase, is_known in seen)
    sampled = [record for record in run.data.records.values() if record.kind == "policy"]
    assert len(sampled) == (6 if any(policys) else 0)  # once for each prompt


def test_the_gap_is_told_the_reference_that_stands_in_the_prompt(tmp_path: Path) -> None:
    feedback = Noted()
    run = run_of(tmp_path, feedback=feedback)
    run.train()
    assert not isinstance(run.feedback.of, RewardGap)
    by_id = {unit.id: unit for unit in [*run.train_units, *run.policy_units]}
    for record in run.data.records.values():
        asked = run.tokenizer.decode(by_id[record.id].groups[0].prompt)
        assert record.text in asked and record.prompt[-1]["content"] in asked
    known = {(repr(record.prompt), record.text) for record in run.data.records.values()}
    assert {(repr(prompt), reference) for prompt, _, reference in feedback.asked} <= known
    unit = run.experience[0]
    own = [(repr(p), new, old) for p, new, old in feedback.asked]
    record = run.data.records[unit.id]
    assert all((repr(record.prompt), text, record.text) in own for text in unit.texts)
    assert unit.rewards == tuple((len(record.text) - len(text)) / 10 for text in unit.texts)


def test_the_reference_of_the_kl_is_the_start_on_the_same_prompt(tmp_path: Path) -> None:
    run = run_of(tmp_path, steps=2)
    run.collect(0)
    for unit in run.experience:  # before the first step the policy is the reference
        torch.testing.assert_close(torch.tensor(unit.old[0]), torch.tensor(unit.reference[0]))
    assert run.start is run.reference


def test_a_run_that_has_the_policys_answers_resumes_with_them_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "whole", 8)
    run.config.training.save_steps = run.args.save_steps = 1
    run.config.training.save_total_limit = 10
    run.train()
    monkeypatch.setattr(PIT, "sample_policy", lambda self: pytest.fail("they are in the checkpoint"))
    again = run_of(tmp_path / "again", 8)
    again.config.training.save_steps = 1
    again.resume(tmp_path / "whole" / "checkpoints" / "checkpoint-5")
    assert distance(weights(run), weights(again)) == 0
    assert again.answers == run.answers and again.curriculum.gaps == run.curriculum.gaps


def test_the_plateau_is_found_again_after_a_resume(tmp_path: Path) -> None:
    said = iter([4.0, 5.0, 4.5, 4.0, 6.0, 6.0])  # mean gap of each phase: phases 2 and 3 are no better than phase 1

    class Scripted:
        def score(self, prompts: Any, completions: Sequence[str], context: Any = None) -> list[float]:
            mean = next(said)
            return [mean + (0.1 if at % 2 else -0.1) for at in range(len(completions))]

        gap = score

    settings = {"switch": "plateau", "switch_at": 2}
    run = run_of(tmp_path / "whole", 12, Scripted(), **settings)
    run.config.training.save_total_limit = 10
    run.train()
    policys = [row["policy_references"] for row in rows(tmp_path / "whole")]
    assert policys == [0] * 8 + [1] * 4 and run.curriculum.gaps == pytest.approx([4.0, 5.0, 4.5, 4.0, 6.0, 6.0])
    said = iter([6.0, 6.0])
    again = run_of(tmp_path / "again", 12, Scripted(), **settings)
    again.resume(tmp_path / "whole" / "checkpoints" / "checkpoint-8")  # the last one of the data's
    assert [row["policy_references"] for row in rows(tmp_path / "again")] == [1] * 4
    assert distance(weights(run), weights(again)) == 0


@pytest.mark.parametrize("loss", ["rloo", "ppo"])
def test_other_updates_are_a_setting_and_resume(loss: str, tmp_path: Path) -> None:
    run = run_of(tmp_path / "whole", 4, loss=loss)
    assert isinstance(run, UPDATES[loss]) and run.config.method == "pit"
    before = weights(run)
    run.train()
    assert distance(before, weights(run)) > 1e-4 and all(math.isfinite(row["loss"]) for row in rows(tmp_path / "whole"))
    again = run_of(tmp_path / "again", 4, loss=loss)
    again.resume(tmp_path / "whole" / "checkpoints" / "checkpoint-2")
    assert distance(weights(run), weights(again)) == 0


def test_an_empty_answer_of_the_policy_is_left_out_and_a_long_one_cut(tmp_path: Path) -> None:
    run = run_of(tmp_path, max_reference_length=5)
    texts = ["", "Short.", " \n", "This answer is a good deal longer than five tokens.", "Fine.", "Good."]
    run.take(texts)
    assert len(run.policy_units) == 4
    assert run.data.counts["policy"]["left_out_empty reference"] == 2
    assert run.data.counts["policy"]["references_cut"] == 1
    assert run.data.counts["train"]["references_cut"] > 0
    with pytest.raises(UserError, match="gave empty answers alone: there is nothing to improve"):
        run.take([""] * 6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"loss": "sigmoid"}, "loss.name=sigmoid: recipe=pit is trained with loss=p3o, rloo, grpo, reinforce, ppo"),
        ({"policy": "nowhere/at/all"}, "nowhere/at/all"),
        ({"template": "chatt"}, "pit.template"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_step(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_of(tmp_path, 2, **settings)
    assert says in str(caught.value)


def test_a_policy_that_cannot_be_loaded_at_the_switch_keeps_the_steps_so_far(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.args.save_steps = 100
    run.policy_path = str(tmp_path / "gone")
    with pytest.raises(UserError, match="gone"):
        run.train()
    assert (tmp_path / "checkpoints" / "checkpoint-4").is_dir()
    again = run_of(tmp_path)
    again.resume(tmp_path / "checkpoints" / "checkpoint-4")
    assert again.state.global_step == 6


def test_the_first_stage_imitates_and_resumes(tmp_path: Path) -> None:
    data = [Improvement(p.id, p.prompt, p.rejected, p.chosen) for p in some_pairs()]

    def trainer() -> ImproverTrainer:
        settings = config("pit_sft", 4)
        settings.loss, settings.training.batch_size = {"name": "nll"}, 4
        return ImproverTrainer(config=settings, train=data, eval=data, folder=tmp_path)

    run = trainer()
    start = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < start
    again = trainer()
    again.resume(tmp_path / "checkpoints" / "checkpoint-2")
    assert distance(weights(run), weights(again)) == 0


def test_improved_against_the_reference_answers_by_hand() -> None:
    records = [ReferenceAnswer(f"{n}", [], [], kind) for n, kind in enumerate(("rejected", "chosen") * 3)]
    given = [1.0, 5.0, 2.0, 5.0, 3.0, math.nan]
    before = [1.0, 4.0, 1.0, 5.0, 3.0, 5.0]
    after = [2.0, 5.0, 3.0, 6.0, 2.0, 5.0]
    found = by_kind(records, given, before, after)
    rejected, chosen = found["rejected"], found["chosen"]
    assert rejected["score"]["before"] == 2.0 and rejected["score"]["after"] == pytest.approx(7 / 3)
    # Before training one of three was lowered, after it two were raised and one lowered.
    assert rejected["won"]["before"] == pytest.approx(-1 / 3) and rejected["won"]["after"] == pytest.approx(1 / 3)
    assert rejected["won"]["after_ci95"][0] <= 1 / 3 <= rejected["won"]["after_ci95"][1]
    assert chosen["score"]["answers"] == 2 and chosen["won"]["after"] == 0.5  # one has no score


def test_the_table_is_of_both_answers_and_of_what_was_trained_on(tmp_path: Path) -> None:
    settings = config("pit", 2)
    settings.evaluation.prompts, settings.evaluation.max_new_tokens, settings.evaluation.score = 8, 8, "length"
    feedback = Noted()
    data = references()
    run = pit_trainer(config=settings, train=data, eval=data, folder=tmp_path, feedback=feedback)
    end = ImprovedEndOfRun(run, run.data.prompts)
    before = end.ask()
    run.train()
    found = end.table(before, after := end.ask())
    assert found["feedback"]["prompts"] == 8 and not found["feedback"]["name"].startswith("reward_gap")
    texts = [answer.text for answer in after.answers]
    gaps = [(len(record.text) - len(text)) / 10 for record, text in zip(end.records, texts, strict=True)]
    assert found["feedback"]["after"] == pytest.approx(sum(gaps) / 8)
    assert set(found["improved"]) == {"rejected", "chosen"} and {"kl", "fluency", "length"} <= found.keys()
    assert found["improved"]["rejected"]["score"]["before"] == pytest.approx(
        sum(end.reward.score([[]] * 4, [record.text for record in end.records[::2]])) / 4
    )
    sample = end.samples(before, after)[0]
    assert sample["prompt"].endswith(f"To improve: {data[0].text}")


FEW = ["training.max_steps=2", "training.batch_size=4", "evaluation.prompts=4", "evaluation.max_new_tokens=8"]
SMALL = ["rollout.prompts=4", "rollout.epochs=1", "rollout.max_new_tokens=8"]
KEYS = {
    "pit_sft": {"improved", "imitation", "score", "kl"},
    "pit_gap": {"gaps", "ranking", "calibration", "by_length"},
    "pit": {"improved", "feedback", "score", "kl", "fluency"},
}


def run_recipe(recipe: str, folder: Path, *words: str) -> dict[str, Any]:
    """The summary of a run of few steps, its table drawn in every form."""
    small = SMALL if recipe == "pit" else []
    few = ["model=tiny", "data.eval_limit=8", *FEW, *small]
    assert main([f"recipe={recipe}", *few, *words, f"output_dir={folder}"]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert KEYS[recipe] <= summary.keys() and summary["data"]["train"]["other_parts"] > 100
    assert (folder / "model" / "README.md").is_file()
    return summary


@pytest.mark.parametrize("recipe", ["pit_sft", "pit_gap", "pit"])
def test_each_recipe_alone_to_its_end(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_recipe(recipe, tmp_path / "run")
    printed, page = capsys.readouterr().out, (tmp_path / "run" / "report.html").read_text()
    assert ("gap: wl > ww" if recipe == "pit_gap" else "rejected answers") in printed
    assert ("gap: wl &gt; ww" if recipe == "pit_gap" else "rejected answers, improved") in page
    assert recipe == "pit_gap" or "To improve:" in (tmp_path / "run" / "samples.jsonl").read_text()


@pytest.mark.slow
def test_the_stages_one_after_the_other(tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in KEYS}
    run_recipe("pit_sft", runs["pit_sft"])
    run_recipe("pit_gap", runs["pit_gap"], f"model.path={runs['pit_sft']}")
    gap = ["feedback=gap_reward", f"feedback.path={runs['pit_gap']}"]
    start = [f"model.path={runs['pit_sft']}", f"pit.policy={runs['pit_sft']}"]
    summary = run_recipe("pit", runs["pit"], *gap, *start)
    assert summary["feedback"]["name"] == "gap_reward" and summary["data"]["policy"]["prompts"] > 50
    for entry in summary["improved"].values():
        assert entry["score"]["difference"] == pytest.approx(entry["score"]["after"] - entry["score"]["before"])
