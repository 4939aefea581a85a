"""The end-of-run table of a model that ranks answers: what it says of held-out pairs before training and after."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from alignment.batching.groups import Unit
from alignment.batching.stored import digests
from alignment.data.readers import load_examples
from alignment.data.views import pairs
from alignment.errors import UserError
from alignment.evaluation.calibration import by_length, calibration, right
from alignment.evaluation.end_of_run import digest_of
from alignment.evaluation.statistics import paired_difference, share_interval
from alignment.trainers.inputs import sampled
from alignment.trainers.map_units import score_units


@dataclass
class Verdicts:
    """Log-odds that the chosen answer is the better one, of each held-out pair."""

    logits: list[float]
    question: str = ""  # which pairs: verdicts on others are not compared
    gaps: list[list[float]] = field(default_factory=list)  # of a gap model: r^wl, r^ww, r^ll and r^lw of each pair

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)))


class HeldOutPairs:
    """Ranks the held-out pairs before and after, and the sets of `evaluation.judge_sets` after.

    Args:
        trainer: a RewardTrainer, or one of its kind.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.units = trainer, trainer.eval_units
        self.asks = f"ranking {len(self.units)} held-out pairs"
        self.question = digest_of(digests(self.units))
        # Read now: a set that is not there must not end a run at its end.
        self.sets = {str(path): self._read(str(path)) for path in trainer.config.evaluation.judge_sets}

    def _read(self, path: str) -> tuple[list[Unit], dict[str, int]]:
        data = replace(self.trainer.config.data, on_bad_row="skip")
        examples = load_examples(path, split=data.eval_split, on_bad_row="skip").examples
        found, left_out = pairs(examples)
        if not found:
            raise UserError(f"evaluation.judge_sets: no pairs in {path}: {left_out}")
        found = list(sampled(found, data.eval_limit, self.trainer.config.seed))
        units, counts = self.trainer.to_units(found, self.trainer.tokenizer, data)
        return units, {**left_out, **counts.as_dict()}

    def ask(self) -> Verdicts:
        return Verdicts(self._logits(self.units), self.question)

    @staticmethod
    def load(file: Path) -> Verdicts:
        return Verdicts(**json.loads(file.read_text()))

    def _logits(self, units: Sequence[Unit]) -> list[float]:
        return score_units(self.trainer, units, self.trainer.logits)

    def table(self, before: Verdicts, after: Verdicts) -> dict[str, Any]:
        """The ranking, calibration, by_length and judge_sets entries of summary.json."""
        p_chosen = [unit.values["p_chosen"] for unit in self.units]
        difference = paired_difference(right(before.logits, p_chosen), right(after.logits, p_chosen))
        entry = difference.to_summary("held-out accuracy")
        entry["pairs"] = entry.pop("prompts")
        if entry["pairs"]:
            entry["after_ci95"] = list(share_interval(entry["after"], entry["pairs"]))
        found: dict[str, Any] = {"ranking": entry}
        found["calibration"] = calibration(after.logits, p_chosen)
        found["by_length"] = by_length(after.logits, p_chosen, [longer(unit) for unit in self.units])
        if self.sets:
            found["judge_sets"] = {name: self._judged(units, counts) for name, (units, counts) in self.sets.items()}
        return found

    def _judged(self, units: list[Unit], counts: dict[str, int]) -> dict[str, Any]:
        logits, p_chosen = self._logits(units), [unit.values["p_chosen"] for unit in units]
        accuracy = float(right(logits, p_chosen).mean())
        entry = {"accuracy": accuracy, "n": len(units), "ci95": list(share_interval(accuracy, len(units)))}
        ece = calibration(logits, p_chosen)["ece"]
        lost = {reason: count for reason, count in counts.items() if count and reason not in ("pairs", "truncated")}
        return {**entry, "ece": None if math.isnan(ece) else ece, "left_out": lost}

    def samples(self, before: Verdicts, after: Verdicts) -> list[dict[str, Any]]:
        return []


def longer(unit: Unit) -> int:
    """How many tokens longer the chosen answer is."""
    if "longer" in unit.values:  # where the answers stand together in one context
        return int(unit.values["longer"])
    chosen, rejected = unit.groups[0].completions
    return len(chosen) - len(rejected)
