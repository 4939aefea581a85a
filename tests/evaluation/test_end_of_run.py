"""Before and after a run: a score that cannot be had is refused at once, and like is compared with like."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from rich.console import Console

from alignment.errors import UserError
from alignment.evaluation.end_of_run import Answers, EndOfRun
from alignment.feedback.adapters import BradleyTerry, Function, MeanWin
from alignment.feedback.rules import Length
from alignment.launch.training_run import answers_before, report
from alignment.rollouts.sample import Answer
from alignment.trainers.dpo import DPOTrainer
from tests.trainers.pairs import some_pairs
from tests.trainers.test_dpo import settings

ASKED: Counter[str] = Counter()


def short_or_nothing(prompt: Any, completion: str, context: Any) -> float:
    """No verdict on the first prompt."""
    ASKED[completion] += 1
    return math.nan if prompt == some_pairs()[0].prompt else -float(len(completion))


def needs_more(prompt: Any, completion: str, context: Any) -> float:
    return context["offset"]


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> DPOTrainer:
    config = settings()
    config.loss, config.peft.method = {"name": "simpo"}, "none"
    config.evaluation.prompts, config.evaluation.max_new_tokens = 3, 4
    folder = tmp_path_factory.mktemp("run")
    return DPOTrainer(config=config, train=some_pairs(), eval=some_pairs(), folder=folder)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("exact_match", "exact_match cannot score an answer to a held-out prompt: .*reference"),
        (f"{__name__}:needs_more", "needs_more cannot score .*: KeyError: 'offset'"),
        ({"name": "mean_win", "of": "length"}, "a judge compares answers to a prompt"),
    ],
)
def test_a_score_that_cannot_be_had_is_refused_before_training(score: Any, words: str, trainer: DPOTrainer) -> None:
    trainer.config.evaluation.score = score
    with pytest.raises(UserError, match=f"(?s)evaluation.score: {words}"):
        EndOfRun(trainer, trainer.data.prompts)


def test_an_answer_is_scored_once_and_no_verdict_is_null_in_the_samples(trainer: DPOTrainer, tmp_path: Path) -> None:
    trainer.config.evaluation.score = f"{__name__}:short_or_nothing"
    end = EndOfRun(trainer, trainer.data.prompts)
    ASKED.clear()
    before, after = end.ask(), end.ask()
    table, samples = end.table(before, after), end.samples(before, after)
    assert table["score"]["prompts"] == 2 and table["score"]["dropped"] == 1
    assert ASKED.total() == 6
    assert [sample["score_before"] is None for sample in samples] == [True, False, False]

    (tmp_path / "model").mkdir()
    (tmp_path / "metrics.jsonl").write_text("")
    report(tmp_path, {"recipe": "dpo", **table}, samples, 1, Console(quiet=True))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in (tmp_path / "samples.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_run_that_is_measured_otherwise_on_resume_is_asked_again(trainer: DPOTrainer, tmp_path: Path) -> None:
    trainer.config.evaluation.score = None
    state, console = PartialState(), Console(quiet=True)
    end = EndOfRun(trainer, trainer.data.prompts)
    first = answers_before(end, tmp_path, console, state)
    assert answers_before(EndOfRun(trainer, trainer.data.prompts), tmp_path, console, state) == first
    for change in ({"prompts": 2}, {"max_new_tokens": 3}):
        for key, value in change.items():
            setattr(trainer.config.evaluation, key, value)
        other = EndOfRun(trainer, trainer.data.prompts)
        before = answers_before(other, tmp_path, console, state)
        assert before != first and len(other.samples(before, other.ask())) == trainer.config.evaluation.prompts == 2


class Longer:
    """A judge, and a reward that needs more than a prompt."""

    def prefer(self, prompts: Any, first: Any, second: Any, context: Any = None) -> list[float]:
        return [
            math.nan if not i else float(len(a) > len(b)) for i, (a, b) in enumerate(zip(first, second, strict=True))
        ]


def answered(*texts: str) -> Answers:
    return Answers([Answer((1,), text, True) for text in texts], [0.0] * len(texts))


@pytest.mark.parametrize(
    ("feedback", "expected"),
    [
        (Length(), {"prompts": 3, "before": 1.0, "after": 2.0, "difference": 1.0}),
        (Longer(), {"prompts": 2, "wins": 0.5}),  # the first of the three has no verdict
        (MeanWin(BradleyTerry(Length())), {"prompts": 3, "wins": (2 / (1 + math.exp(-2)) + 1 / (1 + math.e)) / 3}),
        (Function(needs_more), {"failed": "KeyError: 'offset'"}),
        (None, None),
    ],
)
def test_the_runs_own_feedback_is_asked_of_the_same_answers(feedback: Any, expected: Any, trainer: Any) -> None:
    trainer.config.evaluation.score, trainer.config.evaluation.prompts, trainer.feedback = None, 3, feedback
    prompts = [[{"role": "user", "content": text}] for text in ("x?", "y?", "z?")]
    before, after = answered("a", "a", "a"), answered("a b c", "a b c", "")
    found = EndOfRun(trainer, prompts)._taught(before, after)
    if expected is None:
        assert found == {}
    else:
        assert {name: found[name] for name in expected} == pytest.approx(expected)
    trainer.config.feedback, trainer.config.evaluation.score = {"name": "length"}, "length"
    assert EndOfRun(trainer, prompts)._taught(before, after) == {}  # the score says it already
    trainer.config.feedback, trainer.feedback = {}, None


def test_held_out_prompts_over_the_limit_are_passed_over(trainer: DPOTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.config.evaluation, "score", None)
    short = [pair.prompt for pair in some_pairs()]
    long = [{"role": "user", "content": "word " * (trainer.config.data.max_prompt_length + 1)}]
    end = EndOfRun(trainer, [short[0], long, short[1], long])
    assert end.prompts == short[:2] and end.longer == 2  # three are wanted, and looked for to the end
    assert end.asks == "answering 2 held-out prompts (2 over data.max_prompt_length passed over)"
    assert end.question == EndOfRun(trainer, short[:2]).question
    assert EndOfRun(trainer, [*short[:3], long]).longer == 0
    assert EndOfRun(trainer, [long]).prompts == []
