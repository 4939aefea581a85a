"""What scripts/faults.py does at one point: a run gets a signal there, is resumed, and compared with a whole one.

Every run is a fork of this process, which has imported the toolkit and done nothing with it, so that imports are paid
for once. A point is a place in a run (what it is doing), and how far through all that it does there: the n-th of the
Python events (calls and returns, also of C functions) that the uninterrupted run has in that place.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  here and not in each fork, where curves are drawn
import torch
from safetensors.torch import load_file
from transformers import Trainer

from alignment.evaluation.end_of_run import EndOfRun
from alignment.evaluation.held_out_gaps import HeldOutGaps
from alignment.evaluation.held_out_pairs import HeldOutPairs
from alignment.launch import training_run
from alignment.launch.entry import main as command
from alignment.launch.run import STAGED
from alignment.launch.stages import Stages
from alignment.trainers.base import AlignmentTrainer
from alignment.trainers.checkpoints import step_of, whole_checkpoints
from alignment.trainers.online import OnlineTrainer

SHORT = ["model=tiny", "data.limit=24", "data.eval_limit=6", "training.batch_size=2", "training.max_steps=5"]
SHORT += ["training.save_steps=2", "training.learning_rate=1e-3", "training.bf16=false", "peft.dropout=0.1"]
SHORT += ["evaluation.prompts=4", "evaluation.max_new_tokens=6"]
HELD_OUT = [*SHORT, "training.eval_steps=3"]
ONLINE = [*SHORT, "rollout.prompts=4", "rollout.max_new_tokens=6"]
STAGES = [*SHORT, "training.max_steps=4", "rollout.max_new_tokens=24"]

# name: recipe and settings
RUNS: dict[str, list[str]] = {
    **{name: [f"recipe={name}", *HELD_OUT] for name in ("dpo", "kto", "reward", "preference_model", "sft", "cut")},
    "mle": ["recipe=cut", "loss=mle", *HELD_OUT],
    **{name: [f"recipe={name}", *HELD_OUT] for name in ("pit_sft", "pit_gap")},
    **{
        name: [f"recipe={name}", *ONLINE]
        for name in ("pit", "p3o", "nash_md", "ppo", "rloo", "grpo", "reinforce", "online_dpo", "expert_iteration")
    },
    "cut_online": ["recipe=cut_online", *STAGES, "rollout.iterations=2", "rollout.prompts=6"],
    "ilf": ["recipe=ilf", *STAGES],
}
PLACES: dict[str, tuple[type, ...]] = {  # what a run does, and where: see METHODS
    "step": (AlignmentTrainer,),
    "sampling": (OnlineTrainer,),
    "checkpoint": (AlignmentTrainer,),
    "evaluation": (AlignmentTrainer,),
    "between": (Trainer,),  # the update, logging, callbacks, reading the next batch
    "answering": (EndOfRun,),  # held-out prompts, before training and behind it
    "ranking": (HeldOutPairs, HeldOutGaps),
    "stage": (Stages,),  # of a run of several stages: a file is made
}
METHODS = {
    **{"step": "training_step", "sampling": "collect", "checkpoint": "_save_checkpoint", "evaluation": "_evaluated"},
    **{"between": "_inner_training_loop", "answering": "ask", "ranking": "ask", "stage": "step"},
}
SIGNALS = ("SIGKILL", "SIGTERM")
# What no two runs share; of a checkout that is worked in, the commit neither.
TIMES = {"seconds", "peak_memory_mb", "finished", "overrides", "tokens_per_second", "commit"}


@dataclass(frozen=True)
class Point:
    """Where a run is hit: `signal` when it has done `share` (0 to 1) of what it does in `place`."""

    number: int
    trainer: str
    signal: str
    place: str
    share: float


def points(count: int, seed: int, places: Callable[[str], Sequence[str]]) -> Iterator[Point]:
    """`count` points: every trainer in turn, killed in the first round, terminated in the second, then either."""
    draw = random.Random(seed)
    names = list(RUNS)
    for number in range(count):
        trainer, turn = names[number % len(names)], number // len(names)
        name = SIGNALS[turn] if turn < len(SIGNALS) else draw.choice(SIGNALS)
        yield Point(number, trainer, name, draw.choice(places(trainer)), draw.uniform(0.01, 0.97))


def places_of(trainer: str) -> list[str]:
    """What a run of `trainer` does, by its settings."""
    settings = RUNS[trainer]
    online = "rollout.prompts=4" in settings
    ranks = trainer in ("reward", "preference_model", "pit_gap")
    found = ["step", "checkpoint", "between", "ranking" if ranks else "answering"]
    found += ["sampling"] if online else []
    found += ["evaluation"] if "training.eval_steps=3" in settings else []
    return found + (["stage"] if trainer in STAGED else [])


class Watch:
    """Counts Python events in `places`; with a `target` (number, signal) gives the signal at that event."""

    def __init__(self, places: Collection[str], target: tuple[int, str] | None, note: Path) -> None:
        self.places, self.target, self.note = places, target, note
        self.counts: Counter[str] = Counter()
        self.inside: list[str] = []
        self.step = 0
        self.given = False  # the signal

    def patch(self) -> None:
        """Make every method of PLACES say that it is entered and left."""
        for place, owners in PLACES.items():
            for owner in owners:
                setattr(owner, METHODS[place], self.watched(place, getattr(owner, METHODS[place])))

    def watched(self, place: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(its: Any, *args: Any, **kwargs: Any) -> Any:
            if hasattr(its, "state"):
                self.step = its.state.global_step
            with self.within(place):
                return method(its, *args, **kwargs)

        return call

    @contextmanager
    def within(self, place: str) -> Iterator[None]:
        self.inside.append(place)
        self._look()
        try:
            yield
        finally:
            sys.setprofile(None)
            self.inside.pop()
            self._look()

    def _look(self) -> None:
        here = self.inside[-1] if self.inside else None
        sys.setprofile(self._event if here in self.places and not self.given else None)

    def _event(self, frame: Any, event: str, argument: Any) -> None:
        here = self.inside[-1]
        self.counts[here] += 1
        if self.target is not None and self.counts[here] == self.target[0]:
            sys.setprofile(None)
            self.given = True
            name = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
            name += f" > {argument.__name__}" if event.startswith("c_") else ""
            self.note.write_text(json.dumps({"step": self.step, "at": name}))
            os.kill(os.getpid(), getattr(signal, self.target[1]))


def forked(arguments: list[str], log: Path, watch: Watch | None = None) -> int:
    """The exit code of `align train ARGUMENTS` in a fork; a signal that ended it is negative."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(log, "a") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            training_run.plot_curves = lambda folder: None  # a third of such a run's time
            if watch is not None:
                watch.patch()
            code = command(arguments)
            if watch is not None and watch.target is None:
                watch.note.write_text(json.dumps(watch.counts))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_run(trainer: str, folder: Path, places: Collection[str]) -> tuple[Path, dict[str, int]]:
    """The folder of the uninterrupted run of `trainer`, made once, and its Python events in `places`."""
    made, counts = folder / trainer / "whole", folder / trainer / "counts.json"
    if not counts.is_file() or not json.loads(counts.read_text()).keys() >= set(places):
        shutil.rmtree(made, ignore_errors=True)
        made.parent.mkdir(parents=True, exist_ok=True)
        log = folder / trainer / "whole.log"
        code = forked([*RUNS[trainer], f"output_dir={made}"], log, Watch(places, None, counts))
        if code:
            raise RuntimeError(f"the uninterrupted run of {trainer} ended with {code}: {log.read_text()[-2000:]}")
    return made, json.loads(counts.read_text())


def hit(point: Point, folder: Path, places: Collection[str]) -> dict[str, Any]:
    """The row of one point: how the run was ended, where it went on, and whether it ends as the uninterrupted one.

    Args:
        places: of all points of this trainer: the uninterrupted run is made once for them.
    """
    whole, counts = whole_run(point.trainer, folder, places)
    made, note, log = (folder / point.trainer / f"{point.number}{suffix}" for suffix in ("", ".json", ".log"))
    shutil.rmtree(made, ignore_errors=True)
    for file in (note, log):
        file.unlink(missing_ok=True)
    event = math.ceil(point.share * counts[point.place])
    arguments = [*RUNS[point.trainer], f"output_dir={made}"]
    code = forked(arguments, log, Watch({point.place}, (event, point.signal), note))
    met = json.loads(note.read_text()) if note.is_file() else {"step": None, "at": "never"}
    row = {"point": point.number, "trainer": point.trainer, "signal": point.signal, "place": point.place}
    row |= {"event": event, "events": counts[point.place], **met, "exit": code}
    expected = -signal.SIGKILL if point.signal == "SIGKILL" else 143
    row["ended as it should"] = code == expected and not (made / "summary.json").exists()
    row["went on from"] = goes_on_from(point.trainer, made)
    if row["went on from"] is None:
        shutil.rmtree(made)
        row["second exit"] = forked(arguments, log)
    else:
        row["second exit"] = forked([f"resume={made}"], log)
    row |= same_end(made, whole)
    row["equal"] = row["ended as it should"] and row["second exit"] == 0 and all(same_end(made, whole).values())
    return row


def goes_on_from(trainer: str, made: Path) -> str | None:
    """What a resumed run has of the one that was hit; None where nothing is, and it must begin anew."""
    if trainer not in STAGED:
        whole = whole_checkpoints(made)
        return f"step {step_of(whole[-1])}" if whole else None
    if not (made / "run.json").is_file():
        return None
    done = json.loads((made / "stages.json").read_text()) if (made / "stages.json").is_file() else {}
    return f"{len(done)} stages"


def same_end(made: Path, whole: Path) -> dict[str, bool]:
    """Whether two finished runs have the same metrics, weights (with the optimiser's state), and table, bit for bit."""
    return {
        "metrics": without_times(made / "metrics.jsonl") == without_times(whole / "metrics.jsonl"),
        "weights": same_tensors(made, whole),
        "table": without_times(made / "summary.json") == without_times(whole / "summary.json")
        and all(content(made / name) == content(whole / name) for name in ("samples.jsonl", "rollouts.jsonl")),
    }


def without_times(file: Path) -> list[str]:
    """The rows of a JSON file or of JSON lines, as text, without what differs from run to run."""
    if not file.is_file():
        return ["none"]
    text = file.read_text()
    rows = [json.loads(text)] if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    return [json.dumps(_untimed(row), sort_keys=True) for row in rows]


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if key not in TIMES}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value


def content(file: Path) -> bytes | None:
    """None where there is no such file."""
    return file.read_bytes() if file.is_file() else None


def same_tensors(made: Path, whole: Path) -> bool:
    """The model that was saved, and all tensors of the last checkpoint: weights, optimiser, value head."""
    pairs = [(made / "model", whole / "model")]
    if whole_checkpoints(whole):
        pairs.append((whole_checkpoints(made)[-1], whole_checkpoints(whole)[-1]))
    return all(_tensors(one) == _tensors(other) and _tensors(other) for one, other in pairs)


def _tensors(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor below `folder`, by the file and its place there."""
    found: dict[str, bytes] = {}

    def keep(name: str, value: Any) -> None:
        if torch.is_tensor(value):
            found[name] = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        elif isinstance(value, dict):
            for key, inner in value.items():
                keep(f"{name}/{key}", inner)
        elif isinstance(value, list):
            for key, inner in enumerate(value):
                keep(f"{name}/{key}", inner)

    for file in sorted(folder.rglob("*")):
        if file.suffix == ".safetensors":
            keep(file.name, load_file(file))
        elif file.name in ("optimizer.pt", "value_head.pt"):
            keep(file.name, torch.load(file, weights_only=True))
    return found


HEADINGS = ("trainer", "signal", "while", "at step", "inside", "went on from", "equal")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|---|---|---:|---|---|---|"]
    for row in sorted(rows, key=lambda row: row["point"]):
        place = f"{row['place']}, event {row['event']:,} of {row['events']:,}"
        cells = [row["trainer"], row["signal"], place, row["step"], f"`{row['at']}`"]
        cells += [row["went on from"] or "the beginning", "yes" if row["equal"] else "**no**"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
