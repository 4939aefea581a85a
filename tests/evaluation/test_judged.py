"""What a run did to held-out judged answers, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from alignment.batching.groups import Group, Unit
from alignment.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainingConfig
from alignment.data.views import Judged
from alignment.errors import UserError
from alignment.evaluation.judged import HeldOut, JudgedEndOfRun, changes, measured
from alignment.evaluation.table import rows
from alignment.launch.training_run import end_of_run
from alignment.trainers.cut import CUTTrainer
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.judgments import some_judgments
from tests.trainers.pairs import some_pairs


def held_out(satisfactory: bool, wrong: tuple[int, int] | None = None) -> HeldOut:
    record = Judged("id", [{"role": "user", "content": "Why?"}], [{"role": "assistant", "content": "So."}], "No.",
                    satisfactory)  # fmt: skip
    return HeldOut(record, Unit("id", (Group((1,), ((2, 3, 4),)),)), wrong)


ANSWERS = [held_out(True), held_out(False, (1, 3)), held_out(False)]


def test_log_probs_by_kind_and_place() -> None:
    found = measured(
        ANSWERS,
        [
            ((-1.0, -2.0, -3.0),),
            ((-1.0, -4.0, -5.0, -2.0), (-1.0, -1.0, -2.5)),  # with the right answer behind it
            ((-6.0,),),
        ],
    )
    nan = math.nan
    expected = {
        "satisfactory": [-2.0, nan, nan],
        "unsatisfactory": [nan, -3.0, -6.0],
        "wrong": [nan, -4.5, nan],  # tokens 1 and 2 of four
        "right": [nan, -1.5, nan],
        "right_ahead": [nan, -4.5 + 12.0, nan],
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, nan_ok=True), name


def test_changes_are_paired_and_the_margin_is_between_kinds() -> None:
    nan = math.nan
    before = {
        "satisfactory": [-2.0, -4.0, nan, nan],
        "unsatisfactory": [nan, nan, -3.0, -5.0],
        "wrong": [nan, nan, -4.0, nan],
        "right": [nan, nan, -2.0, nan],
        "right_ahead": [nan, nan, -1.0, nan],
    }
    after = {
        "satisfactory": [-1.0, -3.0, nan, nan],
        "unsatisfactory": [nan, nan, -3.5, -5.5],
        "wrong": [nan, nan, -7.0, nan],
        "right": [nan, nan, -2.0, nan],
        "right_ahead": [nan, nan, 3.0, nan],
    }
    found = changes(before, after, ["a", "b", "a", "b"])
    assert found["satisfactory"]["difference"] == 1.0 and found["unsatisfactory"]["difference"] == -0.5
    assert found["wrong"] == {"answers": 1, "before": -4.0, "after": -7.0, "difference": -3.0}  # no interval of one
    assert (found["right_first"]["before"], found["right_first"]["after"]) == (0.0, 1.0)
    margin = found["margin"]
    assert (margin["before"], margin["after"], margin["difference"]) == (1.0, 2.5, 1.5)
    assert margin["ci95"] == pytest.approx([1.5, 1.5])  # both prompts changed alike
    built = {row.key: row for row in rows({"judged": found})}
    assert built["margin"].tone == "good" and built["margin"].difference == "+1.50"
    assert built["right_first"].after == "100 %" and "no change is told" in built["wrong"].reading


@pytest.mark.parametrize("kind", ["satisfactory", "unsatisfactory"])
def test_answers_of_one_kind_have_no_margin(kind: str) -> None:
    nothing: dict[str, Any] = {name: [math.nan, math.nan] for name in
                               ("satisfactory", "unsatisfactory", "wrong", "right", "right_ahead")}  # fmt: skip
    assert set(changes({**nothing, kind: [-1.0, -2.0]}, {**nothing, kind: [-1.0, -3.0]}, ["a", "b"])) == {kind}


def test_judged_answers_of_any_policy(tmp_path: Path) -> None:
    """evaluation.judged: the rows of recipe=cut for a run that reads no judgments, and a critic's verdicts."""
    config = RunConfig(
        model=ModelConfig(path="tiny"),
        data=DataConfig(eval_limit=5),
        training=TrainingConfig(batch_size=2, max_steps=1, bf16=False),
        evaluation=EvaluationConfig(prompts=3, max_new_tokens=4, judged="planted"),
        feedback={"name": "plain_critic"},
        loss={"name": "sigmoid"},
    )
    trainer = DPOTrainer(config=config, train=some_pairs(4), eval=some_pairs(2), folder=tmp_path)
    found = end_of_run(trainer)
    assert isinstance(found, JudgedEndOfRun) and len(found.held_out) == 5 and len(found.prompts) == 2  # the trainer's
    assert {each.record.prompt[0]["content"] for each in found.held_out}.isdisjoint(
        prompt[0]["content"] for prompt in found.prompts
    )
    answers = found.ask()
    table = found.table(answers, answers)
    assert set(answers.measured["satisfied"]) <= {0.0, 1.0} and len(answers.measured["satisfied"]) == 2
    assert table["satisfied"]["name"] == "plain_critic" and table["satisfied"]["difference"] == 0
    judged = table["judged"]
    assert judged["satisfactory"]["answers"] + judged["unsatisfactory"]["answers"] == 5
    assert all(entry["difference"] == 0 for entry in judged.values())
    trainer.data.prompts = []
    own = end_of_run(trainer)
    assert isinstance(own, JudgedEndOfRun) and len(own.prompts) == 3  # without prompts of its own, those of the answers
    config.feedback = {"name": "length"}  # no critic: nothing is said of it
    assert end_of_run(trainer).satisfied is None  # type: ignore[union-attr]
    config.evaluation.judged = "everyday"
    with pytest.raises(UserError, match="evaluation.judged=everyday: no judged answer in it"):
        end_of_run(trainer)


def test_another_critic_is_another_question(tmp_path: Path) -> None:
    def question(**critic: Any) -> str:
        config = RunConfig(
            method="cut",
            model=ModelConfig(path="tiny"),
            training=TrainingConfig(batch_size=2, max_steps=1, bf16=False),
            evaluation=EvaluationConfig(prompts=2, max_new_tokens=4),
            feedback=critic,
            loss={"name": "cut"},
        )
        found = end_of_run(CUTTrainer(config=config, train=some_judgments(), eval=some_judgments(), folder=tmp_path))
        assert isinstance(found, JudgedEndOfRun)
        return found.question

    asked = {question(), question(name="plain_critic"), question(name="plain_critic", satisfied_from=2.0)}
    assert len(asked) == 3 and question(name="plain_critic") in asked
