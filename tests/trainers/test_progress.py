from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from alignment.trainers.progress import ProgressBar


class Run:
    """A stand-in for the Trainer: calls the callback in the Trainer's order, step end before log."""

    def __init__(self, steps: int, terminal: bool = False, zero: bool = True, start: int = 0, width: int = 100) -> None:
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=terminal, width=width, color_system=None, _environ={})
        self.bar = ProgressBar(console)
        self.state = SimpleNamespace(is_world_process_zero=zero, global_step=start, max_steps=steps)

    def begin(self) -> None:
        self.bar.on_train_begin(None, self.state, None)

    def step(self, log: bool = True, **metrics: Any) -> None:
        self.state.global_step += 1
        self.bar.on_step_end(None, self.state, None)
        if log:
            values = {"loss": 0.65, "accuracy": 0.75, "margin": 0.12, "tokens_per_second": 412.3, **metrics}
            self.bar.on_log(None, self.state, None, logs=values)

    def evaluate(self) -> None:
        logs = {"eval_loss": 0.6, "eval_accuracy": 0.712, "eval_margin": 0.351}
        self.bar.on_log(None, self.state, None, logs=logs)

    def end(self) -> None:
        self.bar.on_log(None, self.state, None, logs={"train_runtime": 3.2, "train_loss": 0.5})
        self.bar.on_train_end(None, self.state, None)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


def test_a_log_file_gets_a_line_about_every_tenth_of_the_steps() -> None:
    run = Run(48)
    run.begin()
    for _ in range(48):
        run.step()
    run.end()
    assert [line.split("  ")[0] for line in run.lines] == [f"step {n}/48" for n in (*range(5, 46, 5), 48)]
    assert run.lines[0].startswith("step 5/48  loss 0.650  acc 0.75  margin +0.12  412 tok/s  ")
    assert run.lines[0].endswith(" left")
    assert "left" not in run.lines[-1]
    assert "\x1b" not in run.file.getvalue()


@pytest.mark.parametrize(("steps", "lines"), [(1, 1), (3, 3), (10, 10), (11, 6)])
def test_short_runs_get_as_many_lines_as_they_have(steps: int, lines: int) -> None:
    run = Run(steps)
    run.begin()
    for _ in range(steps):
        run.step()
    run.end()
    assert len(run.lines) == lines


def test_steps_that_are_never_logged_still_show_that_it_moves() -> None:
    run = Run(30)
    run.begin()
    for _ in range(30):
        run.step(log=False)
    assert len(run.lines) >= 7
    assert run.lines[0].startswith("step 4/30")


def test_an_evaluation_has_its_own_line() -> None:
    run = Run(100)
    run.begin()
    for _ in range(20):
        run.step()
    run.evaluate()
    assert run.lines[-1] == "step 20  held-out accuracy 0.71  margin 0.35  loss 0.600"


def test_nothing_is_said_outside_of_training_or_by_other_processes() -> None:
    for run in (Run(3), Run(3, zero=False), Run(3, terminal=True, zero=False)):
        run.evaluate()
        if not run.state.is_world_process_zero:
            run.begin()
            run.step()
            run.evaluate()
            run.end()
        assert run.file.getvalue() == ""


def test_a_resumed_run_goes_on_from_its_step() -> None:
    run = Run(100, start=50)
    run.begin()
    for _ in range(10):
        run.step()
    assert [line.split("  ")[0] for line in run.lines] == ["step 60/100"]


def test_missing_and_broken_values_are_passed_over() -> None:
    run = Run(1)
    run.begin()
    run.step(loss=float("nan"), accuracy=None, margin="x", tokens_per_second=float("inf"))
    run.bar.on_log(None, run.state, None, logs=None)
    assert run.lines == []  # no number at all: the line waits
    run.end()


@pytest.mark.parametrize(
    ("width", "shown"),
    [(100, "loss 0.650  acc 0.75  margin +0.12  412 tok/s"), (80, "tok/s"), (60, "acc 0.75"), (40, "training")],
)
def test_the_bar_shows_the_step_and_what_fits(width: int, shown: str) -> None:
    run = Run(20, terminal=True, width=width)
    run.begin()
    for _ in range(7):
        run.step()
    run.evaluate()
    run.end()
    text = run.file.getvalue()
    assert "7/20" in text
    assert shown in text
    assert "step 7  held-out accuracy 0.71" in text
    assert text.endswith("\n\x1b[?25h")  # what comes next begins on a line of its own


def test_the_cursor_is_never_left_hidden() -> None:
    run = Run(20, terminal=True)
    run.begin()
    begun = run.file.getvalue()
    # rich hides it when the bar starts; it is back at once, so that even SIGKILL leaves a usable terminal.
    assert begun.rindex("\x1b[?25h") > begun.rindex("\x1b[?25l")
    run.step()
    run.bar.close()
    assert run.bar.progress is None
    after = run.file.getvalue()
    run.bar.close()  # as often as one likes, and after the end
    run.end()
    assert run.file.getvalue() == after


def test_the_bar_is_taken_down_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr("atexit.register", registered.append)
    run = Run(20, terminal=True)
    run.begin()
    assert registered == [run.bar.close]
    registered[0]()  # what the interpreter does after an exception that nobody caught
    assert run.bar.progress is None


def test_a_second_training_starts_a_new_bar() -> None:
    run = Run(20, terminal=True)
    run.begin()
    first = run.bar.progress
    run.begin()
    assert run.bar.progress is not first
    assert first is not None
    assert first.live.is_started is False
    run.end()
