"""At the end of a run: how much of what it is measured on was in what it was trained on, for its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from alignment.data.contamination import Contamination, contamination
from alignment.data.contamination_rendering import write_sections
from alignment.data.overlap_texts import Row, example_rows, merged, record_rows
from alignment.data.readers import load_examples


def write_contamination(trainer: Any, folder: Path, console: Console) -> None:
    """Write the contamination tables of the run's report; what is wrong with it must not end a run at its end."""
    try:
        found = of_run(trainer)
        if found is not None:
            write_sections(found, folder)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        console.print(f"contamination is not in the report: {type(error).__name__}: {reason}", markup=False)


def of_run(trainer: Any) -> Contamination | None:
    """n-grams of the run's held-out examples and of `evaluation.judge_sets` in its training data; None without any."""
    data, config = trainer.data, trainer.config
    sets: dict[str, list[Row]] = {}
    if data.held_out or data.prompts:
        rows = (
            record_rows(data.held_out) if data.held_out else (Row(f"prompt {i}", p) for i, p in enumerate(data.prompts))
        )
        sets["held out"] = merged(rows)
    for path in config.evaluation.judge_sets:
        sets[str(path)] = list(example_rows(load_examples(str(path), split=config.data.eval_split).examples))
    return contamination(record_rows(data.records.values()), sets) if sets else None
