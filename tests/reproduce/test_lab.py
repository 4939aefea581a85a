"""Runs and answers are made once, and known by what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alignment.data.example import Example
from alignment.feedback.protocols import Reward
from alignment.reproduce.lab import DONE, Lab, Sampled
from alignment.reproduce.sweep import pair

TRAINED: list[Any] = []
PROMPT = [{"role": "user", "content": "Name a fruit."}]


class Fake:
    """A trainer that writes down what it was given."""

    def __init__(self, config: Any, folder: Path, train: Any, eval: Any, feedback: Any = None) -> None:
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)

    def train(self) -> None:
        TRAINED.append(self.config)

    def save_policy(self, folder: Path) -> None:
        folder.mkdir()


class Failing(Fake):
    def train(self) -> None:
        raise RuntimeError("out of memory")


@dataclass
class Constant(Reward):
    value: float

    def score(self, prompts: Any, completions: Any, context: Any = None) -> list[float]:
        return [self.value] * len(completions)


def records(answer: str = "A pear.") -> list[Example]:
    return [pair(PROMPT, answer, "No.")]


def test_a_run_is_made_once_for_what_it_depends_on(tmp_path: Path) -> None:
    TRAINED.clear()
    lab = Lab(tmp_path / "lab")

    def run(*overrides: str, seed: int = 0, answer: str = "A pear.", feedback: Any = None, here: Lab = lab) -> Path:
        return here.run("dpo", seed, *overrides, train=records(answer), trainer=Fake, feedback=feedback)

    first = run("loss.beta=0.1")
    assert run("loss.beta=0.1") == first and len(TRAINED) == 1
    assert TRAINED[0].loss["beta"] == 0.1 and TRAINED[0].seed == 0 and TRAINED[0].model.path == "tiny"
    others = [
        run("loss.beta=0.2"),
        run("loss.beta=0.1", seed=1),
        run("loss.beta=0.1", answer="A plum."),
        run("loss.beta=0.1", feedback=Constant(1.0)),
        run("loss.beta=0.1", feedback=Constant(2.0)),
    ]
    assert len({first, *others}) == 6 and len(TRAINED) == 6

    (tmp_path / "lab").rename(tmp_path / "moved")
    moved = Lab(tmp_path / "moved")
    assert run("loss.beta=0.1", here=moved).name == first.name and len(TRAINED) == 6
    # A run that starts from another run of the lab is known by its name, not by where the lab lies.
    start = f"model.path={moved.folder / 'runs' / first.name}"
    nested = run(start, here=moved)
    (tmp_path / "moved").rename(tmp_path / "again")
    again = Lab(tmp_path / "again")
    assert run(f"model.path={again.folder / 'runs' / first.name}", here=again).name == nested.name
    assert len(TRAINED) == 7


def test_a_run_that_failed_is_begun_anew(tmp_path: Path) -> None:
    TRAINED.clear()
    lab = Lab(tmp_path)
    with pytest.raises(RuntimeError):
        lab.run("dpo", 0, train=records(), trainer=Failing)
    Failing.__qualname__ = Fake.__qualname__  # the same run, on another day
    folder = lab.run("dpo", 0, train=records(), trainer=Fake)
    assert (folder / DONE).is_file() and len(TRAINED) == 1


def test_answers_are_sampled_once_and_are_what_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment.reproduce import asking

    lab, prompts = Lab(tmp_path), [PROMPT, [{"role": "user", "content": "Hello!"}]]
    found = lab.answers("tiny", prompts, Sampled(6, k=3))
    assert [len(row) for row in found.texts] == [3, 3] and all(0 < n <= 6 for row in found.tokens for n in row)
    assert found.log_ratio == [[0.0] * 3] * 2  # without an adapter the model is its own base
    monkeypatch.setattr(asking, "ask", None)  # not asked again
    assert lab.answers("tiny", prompts, Sampled(6, k=3)) == found
    assert found.first(1).texts == [row[:1] for row in found.texts]
