"""Best of n: what the feedback picks, what it costs, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from alignment.config import EvaluationConfig
from alignment.errors import UserError
from alignment.evaluation.end_of_run import EndOfRun
from alignment.feedback.adapters import Function
from alignment.launch.entry import main
from alignment.rollouts.sample import Answer
from alignment.trainers.best_of_n import BestOfNTrainer
from tests.trainers.online_runs import config, prompts, short


def trainer(folder: Path, feedback: Any = None, **changes: Any) -> BestOfNTrainer:
    settings = config("best_of_n", 1, completions=4)
    settings.loss, settings.peft.method = {}, "none"
    settings.evaluation = EvaluationConfig(prompts=4, max_new_tokens=8, temperature=1.0)
    for key, value in changes.items():
        section, _, name = key.partition("__")
        setattr(getattr(settings, section), name, value)
    data = prompts()
    return BestOfNTrainer(config=settings, train=data, eval=data, folder=folder, feedback=feedback or Function(short))


def test_the_best_by_the_feedback_is_kept_and_a_prompt_without_a_verdict_keeps_the_first(tmp_path: Path) -> None:
    scores = {"a": 1.0, "b": 3.0, "c": math.nan, "d": 2.0}
    run = trainer(tmp_path, Function(lambda prompt, text, context: scores.get(text, math.nan)))
    answers = [[Answer((1,), text, True) for text in texts] for texts in ("abcd", "cdab", "cccc")]
    asked = [prompt.prompt for prompt in run.data.held_out[:3]]
    assert run.pick(asked, answers) == [1, 3, 0] and run.no_verdict == 1
    run.config.rollout.missing_end_penalty = 5.0
    cut = [[Answer((1,), text, text != "b") for text in "abcd"]]
    assert run.pick(asked[:1], cut) == [3]
    found = run.entries()
    assert found["best_of"]["n"] == 4 and found["kl"]["bound"] == pytest.approx(math.log(4) - 3 / 4)


def test_one_sample_before_and_the_best_of_n_after(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    end = EndOfRun(run, run.data.prompts)
    before = end.ask()
    run.train()
    after = end.ask()
    assert len(before.answers) == len(after.answers) == 4
    score = [sum(short(None, answer.text, None) for answer in answers.answers) for answers in (before, after)]
    assert score[1] >= score[0] and not any(p.requires_grad for p in run.model.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rollout__completions": 1}, "the best of one answer is that answer"),
        ({"evaluation__temperature": 0}, "evaluation.temperature=0: best of n picks among different answers"),
        ({"evaluation__prompts": 0}, "evaluation.prompts=0: best of n picks"),
        ({"reference__path": "tiny"}, "reference.path: best of n is compared with the model that is sampled"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        trainer(tmp_path, **changes)


def test_feedback_that_fails_is_named(tmp_path: Path) -> None:
    def breaks(prompt: Any, text: str, context: Any) -> float:
        raise ConnectionError("the scoring service is gone")

    run = trainer(tmp_path, Function(breaks))
    with pytest.raises(UserError, match="the feedback failed on the 4 samples: ConnectionError"):
        run.pick([run.data.held_out[0].prompt], [[Answer((1,), text, True) for text in "abcd"]])


def test_the_recipe_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    few = ["evaluation.prompts=8", "evaluation.max_new_tokens=12", "rollout.completions=4", f"output_dir={run}"]
    assert main(["recipe=best_of_n", "model=tiny", *few]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["score"]["difference"] > 0 and summary["best_of"] == {"n": 4, "no_verdict": 0}
    assert summary["steps"] == 0 and not (run / "model").exists() and (run / "report.html").is_file()
    assert "best of" in capsys.readouterr().out
    assert main(["recipe=best_of_n", "model=tiny", f"resume={run}"]) == 2
    assert "best of n takes no steps to go on from" in capsys.readouterr().err
