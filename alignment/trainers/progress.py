"""What a run shows while it trains: a progress bar in a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import atexit
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text
from transformers import TrainerCallback

from alignment.evaluation.text import decimal, duration, number

LINES = 10  # plain lines of a whole run, about
_BAR_WIDTH = 34  # columns kept for the bar, the step and the time left
# What a training row shows: its key in the logs, and how it is written.
_SHOWN = (
    ("loss", lambda value: f"loss {decimal(value, 3)}"),
    ("nats_per_token", lambda value: f"{decimal(value, 3)} nats/token"),
    ("accuracy", lambda value: f"acc {decimal(value)}"),
    ("margin", lambda value: f"margin {decimal(value, sign=True)}"),
    ("tokens_per_second", lambda value: f"{decimal(value, 0)} tok/s"),
)


class ProgressBar(TrainerCallback):
    """Shows step, time left, loss, margin, accuracy and useful tokens per second, on the first process only.

    In a terminal it is a rich bar, with a line above it for every evaluation; elsewhere (a log file, a notebook) a
    plain line about every tenth of the steps. The cursor stays visible and the bar is taken down at exit, so that a
    crash or a signal leaves the terminal usable even if `on_train_end` never comes; `close()` does it at once.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.progress: Progress | None = None
        self._task = TaskID(0)
        self._shown: dict[str, float] = {}  # the last value of each metric
        self._training = False
        self._started = 0.0
        self._first_step = 0  # the step that training started from: not 0 after a resume
        self._last_line = 0  # the step of the last plain line

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        self.close()
        self._training, self._started, self._shown = True, time.monotonic(), {}
        self._first_step = self._last_line = state.global_step
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._start_bar(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.progress is not None:
            self.progress.update(self._task, completed=state.global_step)
        # Steps are logged after this call. The line is due here only if the last step should have had one and did not.
        elif self._training and self._is_due(state.global_step - 1, state.max_steps):
            self._print_line(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not self._training or not logs:
            return
        if any(key.startswith("eval_") for key in logs):
            self._print_evaluation(state.global_step, logs)
            return
        found = {key: value for key, _ in _SHOWN if (value := number(logs.get(key))) is not None}
        if not found:
            return  # the Trainer's closing row: run time and the like
        self._shown.update(found)
        if self.progress is not None:
            self.progress.update(self._task, metrics=self._metrics(self.console.width - _BAR_WIDTH))
        elif self._is_due(state.global_step, state.max_steps):
            self._print_line(state.global_step, state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar down, leaving its last state as a line. May be called at any time and more than once."""
        self._training = False
        if self.progress is not None:
            progress, self.progress = self.progress, None
            progress.stop()
            atexit.unregister(self.close)

    def _start_bar(self, step: int, steps: int) -> None:
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            _TimeLeft(),
            TextColumn("{task.fields[metrics]}", markup=False, table_column=Column(no_wrap=True)),
            console=self.console,
            expand=True,
            refresh_per_second=4,
            speed_estimate_period=300,  # seconds; a step may take several
        )
        self._task = self.progress.add_task("training", total=steps, completed=step, metrics="")
        self.progress.start()
        # rich hides the cursor, and only `stop` brings it back: a killed process would leave the shell without one.
        self.console.show_cursor(True)
        atexit.register(self.close)

    def _metrics(self, width: int = 1000) -> str:
        """The metrics known, as many of them as fit into `width` columns."""
        line = ""
        for key, write in _SHOWN:
            if key in self._shown:
                longer = f"{line}  {write(self._shown[key])}" if line else write(self._shown[key])
                if len(longer) > width:
                    break
                line = longer
        return line

    def _is_due(self, step: int, steps: int) -> bool:
        """Whether the plain line of `step` is to be printed: a tenth of the steps since the last one, or the end."""
        return step > self._last_line and (step >= steps or step - self._last_line >= -(-steps // LINES))

    def _print_line(self, step: int, steps: int) -> None:
        self._last_line = step
        done = step - self._first_step
        seconds = time.monotonic() - self._started
        left = f"{duration(seconds / done * (steps - step))} left" if done and step < steps else ""
        self._print("  ".join(part for part in (f"step {step}/{steps}", self._metrics(), left) if part))

    def _print_evaluation(self, step: int, logs: dict[str, Any]) -> None:
        parts = [f"step {step}"]
        if number(logs.get("eval_accuracy")) is not None:
            parts.append(f"held-out accuracy {decimal(logs['eval_accuracy'])}")
        for key, name in (("eval_margin", "margin"), ("eval_loss", "loss")):
            if number(logs.get(key)) is not None:
                parts.append(f"{name} {decimal(logs[key], 3 if name == 'loss' else 2)}")
        self._print("  ".join(parts))

    def _print(self, line: str) -> None:
        # The bar's own console prints above it. One line a row, whatever the width: these lines are also searched.
        self.console.print(Text(line), soft_wrap=True, highlight=False)


class _TimeLeft(TimeRemainingColumn):
    """`3:05 left`, and nothing before two steps are known or at the end."""

    max_refresh = 1.0

    def render(self, task: Any) -> Text:
        if task.finished or task.time_remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.time_remaining), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return Text(f"{clock} left", style="progress.remaining")
