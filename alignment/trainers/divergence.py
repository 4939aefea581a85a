"""What watches preference training for the ways it goes wrong, by the rows of metrics.jsonl alone: no pass of its own.

* chosen log-prob: a loss on differences is content when both answers become unlikely, the chosen one a little less so.
* length: sampled answers grow, where a reward likes them long.
* log-ratio: summed log pi / ref of the preferred or the dispreferred answers. It is not the KL, which is over the
  policy's own samples; the KL of an online run has its own budget, rollout.kl_limit (trainers/guards.py).
* held out: what is trained on rises while what is held out falls: the margin of held-out pairs, or, online, another
  reward on the same samples.

Means are over rows, the first of the run and the latest, so that one noisy step is no alarm.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from alignment.batching.groups import Unit
from alignment.config import GuardConfig
from alignment.trainers import checkpoints
from alignment.trainers.map_units import gathered

FILE = "divergence.json"  # in the run folder: what was seen, and the examples of it
SHOWN = 16  # so many examples
ERRORS = 2.0  # standard errors by which a held-out mean must have fallen


class Trend:
    """The mean of a metric over its first `size` rows and over its latest."""

    def __init__(self, size: int, first: Sequence[float] = (), latest: Sequence[float] = (), count: int = 0) -> None:
        self.size, self.first, self.latest, self.count = size, list(first), list(latest), count

    def add(self, value: float) -> None:
        if len(self.first) < self.size:
            self.first.append(value)
        self.latest = [*self.latest, value][-self.size :]
        self.count += 1

    @property
    def start(self) -> float | None:
        """None until there are as many rows again."""
        return statistics.fmean(self.first) if self.count >= 2 * self.size else None

    @property
    def now(self) -> float | None:
        return statistics.fmean(self.latest) if len(self.latest) == self.size else None

    def state(self) -> dict[str, Any]:
        return {"size": self.size, "first": self.first, "latest": self.latest, "count": self.count}


class Divergence:
    """Looks at each row of metrics as it is written. Every rank sees the same rows, and decides alike.

    Args:
        settings: the limits; null ones are not looked at.
        beta: what implicit rewards are multiples of; None where the loss has none.
    """

    def __init__(self, settings: GuardConfig, beta: float | None) -> None:
        self.settings, self.beta = settings, beta
        self.trends: dict[str, Trend] = {}
        self.held_out: list[tuple[float, float]] = []  # (what is trained on, what is held out), a look each
        self.said: dict[str, int] = {}  # the step at which each sign was seen
        self.stopped = False  # by one of them: no step is left
        self.seen: list[tuple[Sequence[Unit], dict[str, Tensor]]] = []  # of the steps since the last row

    def add(self, units: Sequence[Unit], metrics: dict[str, Tensor]) -> None:
        """Note a micro-batch, until the next row: each metric is (len(units),)."""
        self.seen.append((units, metrics))

    def look(self, step: int, row: dict[str, Any]) -> list[dict[str, Any]]:
        """What is newly wrong by this row of training or evaluation: {step, sign, value, limit, metric, says}."""
        if "loss" in row:
            for name in ("chosen_logp", "length", "chosen_reward", "rejected_reward", "margin", "reward"):
                value = row.get(name)
                if value is not None and math.isfinite(value):
                    self.trends.setdefault(name, Trend(self.settings.rows)).add(value)
        self._note_held_out(row)
        found = [sign for sign in self._signs() if sign["sign"] not in self.said]
        for sign in found:
            sign["step"] = self.said[sign["sign"]] = step
        return found

    def _mean(self, name: str, of: str = "now") -> float | None:
        trend = self.trends.get(name)
        return getattr(trend, of) if trend else None

    def _note_held_out(self, row: dict[str, Any]) -> None:
        if "eval_margin" in row:
            trained, held = self._mean("margin"), row["eval_margin"]
        elif "held_out_reward" in row and "loss" in row:
            trained, held = row.get("reward"), row["held_out_reward"]
        else:
            return
        if trained is not None and math.isfinite(trained) and math.isfinite(held):
            self.held_out = [*self.held_out, (trained, held)][-2 * (self.settings.held_out_looks or 1) :]

    def _signs(self) -> list[dict[str, Any]]:
        settings, found = self.settings, []

        def sign(name: str, value: float, limit: float, metric: str, says: str) -> None:
            found.append({"sign": name, "value": value, "limit": limit, "metric": metric, "says": says})

        now, start, drop = self._mean("chosen_logp"), self._mean("chosen_logp", "start"), settings.chosen_logp_drop
        if drop is not None and now is not None and start is not None and start - now > drop:
            says = f"chosen answers are at {now:.2f} nats a token, from {start:.2f} (guard.chosen_logp_drop={drop:g})"
            sign("chosen_logp", start - now, drop, "chosen_logp", says)
        now, start, ratio = self._mean("length"), self._mean("length", "start"), settings.length_ratio
        if ratio is not None and now is not None and start is not None and now > ratio * start:
            says = f"sampled answers have {now:.0f} tokens, from {start:.0f} (guard.length_ratio={ratio:g})"
            sign("length", now / start, ratio, "length", says)
        limit = settings.log_ratio_limit
        for name in ("chosen", "rejected") if limit is not None and self.beta else ():
            reward = self._mean(f"{name}_reward")
            if limit is not None and self.beta and reward is not None and abs(reward) / self.beta > limit:
                far = f"{reward / self.beta:+.0f} nats from the reference"
                says = f"{name} answers are {far} (guard.log_ratio_limit={limit:g})"
                sign(f"log_ratio_{name}", abs(reward) / self.beta, limit, f"{name}_reward", says)
        fell = self._held_out_falls()
        if fell is not None:
            says = f"what is trained on rises, and what is held out fell by {fell:.3g} (guard.held_out_looks)"
            metric = "margin" if "margin" in self.trends else "reward"
            sign("held_out", fell, 0.0, metric, says)
        return found

    def _held_out_falls(self) -> float | None:
        """By how much the mean of the last looks is below that of the looks before, where more than noise says so."""
        looks = self.settings.held_out_looks
        if looks is None or len(self.held_out) < 2 * looks:
            return None
        before, after = self.held_out[:looks], self.held_out[looks:]
        (trained, held), (trained_now, held_now) = (
            tuple(statistics.fmean(column) for column in zip(*part, strict=True)) for part in (before, after)
        )
        variance = sum(statistics.variance([value for _, value in part]) for part in (before, after)) / looks
        falls = held - held_now > ERRORS * math.sqrt(variance)
        return held - held_now if falls and trained_now > trained else None

    def offenders(self, metric: str, sign: str) -> list[dict[str, Any]]:
        """This rank's examples since the last row that have most of `metric` (of a log-prob or ratio, least)."""
        rows: list[dict[str, Any]] = []
        for units, metrics in self.seen:
            for unit, value in zip(units, metrics[metric].tolist() if metric in metrics else [], strict=False):
                row = {"id": unit.id, metric: value}
                rows.append(row | ({"answers": list(unit.texts)} if hasattr(unit, "texts") else {}))
        return worst(rows, metric, sign)

    def state(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        trends = {name: trend.state() for name, trend in self.trends.items()}
        return {"trends": trends, "held_out": self.held_out, "said": self.said, "stopped": self.stopped}

    def load(self, state: dict[str, Any]) -> None:
        sized = {name: kept for name, kept in state["trends"].items() if kept["size"] == self.settings.rows}
        self.trends = {name: Trend(**kept) for name, kept in sized.items()}
        self.held_out = [tuple(pair) for pair in state["held_out"]]
        self.said = state["said"] if self.settings.action == "warn" or state["stopped"] else {}
        self.stopped = state["stopped"] and self.settings.action != "warn"


def worst(rows: Sequence[dict[str, Any]], metric: str, sign: str) -> list[dict[str, Any]]:
    """The SHOWN rows with most of what is wrong."""
    low = sign == "chosen_logp"
    by = (lambda row: row[metric]) if low else (lambda row: -abs(row[metric]))
    return sorted(rows, key=by)[:SHOWN]


def look(trainer: Any, row: dict[str, Any]) -> None:
    """Let the guard of `trainer` look at `row`, and do what its configuration says. All ranks must call it."""
    guard: Divergence = trainer.divergence
    found = guard.look(trainer.state.global_step, row)
    for sign in found:
        examples = gathered(trainer, guard.offenders(sign["metric"], sign["sign"]))
        examples = worst(examples, sign["metric"], sign["sign"])
        if trainer.is_world_process_zero():
            _write(trainer.folder / FILE, {**sign, "action": guard.settings.action, "examples": examples})
            print(f"step {sign['step']}: {sign['says']}{_doing(guard.settings.action)}; examples: {FILE}")
    if "loss" in row:
        guard.seen = []
    if found and guard.settings.action != "warn":
        stop = guard.settings.action == "stop"
        guard.stopped = stop
        trainer.control.should_training_stop = True
        trainer.control.should_save, trainer.control.should_evaluate = stop, False
        trainer.roll_back_before = None if stop else _before(trainer)


def _doing(action: str) -> str:
    return {
        "warn": " - a warning, guard.action=warn",
        "stop": ": stopping, with a checkpoint",
        "roll_back": ": stopping, and going back to a checkpoint before it",
    }[action]


def _before(trainer: Any) -> int:
    """The last step in front of the rows that the means of now are over."""
    rows = trainer.divergence.settings.rows * trainer.config.training.logging_steps
    return max(trainer.state.global_step - rows, 0)


def _write(file: Path, entry: dict[str, Any]) -> None:
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    again = (entry["sign"], entry["step"])  # a resumed run comes by again
    kept = [row for row in kept if (row["sign"], row["step"]) != again]
    file.write_text(json.dumps([*kept, entry], indent=1, ensure_ascii=False), encoding="utf-8")


def roll_back(trainer: Any) -> None:
    """Take the weights of the newest whole checkpoint that lies before the trouble; of the oldest, where none does."""
    whole = checkpoints.whole_checkpoints(trainer.folder)
    before = [folder for folder in whole if checkpoints.step_of(folder) <= trainer.roll_back_before]
    chosen = before[-1] if before else whole[0] if whole else None
    first = trainer.is_world_process_zero()
    if chosen is None:
        if first:
            print("there is no checkpoint to go back to: the model stays as it is (training.save_steps=N saves some)")
        return
    trainer._load_from_checkpoint(str(chosen))
    trainer.state.global_step = checkpoints.step_of(chosen)
    if first:
        late = "" if before else ", the oldest that is kept, though the trouble may have begun before it"
        print(f"the model is that of step {trainer.state.global_step} again{late}")
