"""Standard benchmarks, by lm-eval where it is installed: nothing of them is written anew here."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.files import write_atomically
from alignment.evaluation.models.cells import NAN, Cell
from alignment.evaluation.models.prompts import digest
from alignment.evaluation.models.sampled import slug
from alignment.evaluation.models.weights import Weights
from alignment.resumable import OneProcess

INSTALL = "pip install lm-eval"
Results = dict[str, dict[str, Any]]  # of a task, and of its parts where it has some


def harness() -> Any:
    """The package `lm_eval`; UserError that says how to install it where it is missing."""
    try:
        return importlib.import_module("lm_eval")
    except ImportError as error:
        raise UserError(f"--tasks needs a package that is not installed ({error}): {INSTALL}") from error


def task_cells(
    name: str, weights: Weights, tasks: Sequence[str], folder: Path, limit: int | None, processes: OneProcess
) -> list[Cell]:
    """The metrics of each task and of its groups' means, as lm-eval gives them, with its standard errors.

    Each task is measured once, by one of the processes, and kept in FOLDER/tasks by weights, task and limit.

    Raises:
        UserError: an unknown task, or what else lm-eval refuses.
    """

    def path(task: str) -> Path:
        own = Path(task).read_text("utf-8") if Path(task).is_file() else None  # a YAML file of a person's own
        key = digest("tasks", weights.key, task, own, limit)
        return folder / "tasks" / f"{slug(weights.spec)}-{slug(task)}-{key}.json"

    def kept() -> dict[str, Results]:
        return {task: json.loads(path(task).read_text("utf-8")) for task in tasks if path(task).is_file()}

    found = processes.on_first(kept)
    todo = [task for task in dict.fromkeys(tasks) if task not in found]
    for first in range(0, len(todo), processes.size):
        mine = first + processes.rank
        made = [_measured(weights, todo[mine], limit)] if mine < len(todo) else []
        for task, results, failure in processes.gathered(made):
            if failure:
                raise UserError(f"--tasks {task}: lm-eval refuses: {failure}")
            found[task] = results
            if processes.rank == 0:
                path(task).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path(task), json.dumps(results, indent=1, default=str) + "\n")
        processes.after_batch()
    results = {part: numbers for task in tasks for part, numbers in found[task].items()}
    return [cell for part, numbers in results.items() for cell in _cells(name, part, numbers)]


def _measured(weights: Weights, task: str, limit: int | None) -> tuple[str, Results, str]:
    """(the task, its results, why there are none), measured in this process alone with the model that answered."""
    evaluator = harness()
    language_model = importlib.import_module("lm_eval.models.huggingface").HFLM
    try:
        model = language_model(pretrained=weights.model, tokenizer=weights.tokenizer)
        with _as_the_first():
            found = evaluator.simple_evaluate(model=model, tasks=[task], limit=limit, log_samples=False)
    except (ValueError, KeyError, OSError) as error:
        return task, {}, " ".join(str(error).split())[:300]
    return task, dict(found["results"]), ""


@contextmanager
def _as_the_first() -> Iterator[None]:
    """lm-eval gives no results where the launcher says that this is not the first process: it takes it for a helper."""
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "0"
    try:
        yield
    finally:
        if rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = rank


def _cells(name: str, task: str, found: dict[str, Any]) -> list[Cell]:
    """`{"acc,none": 0.31, "acc_stderr,none": 0.02, "alias": …}`: one cell for each number that is no error."""
    cells = []
    for key, value in found.items():
        metric, _, kind = key.partition(",")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or metric.endswith("_stderr") or not kind:
            continue
        error = found.get(f"{metric}_stderr,{kind}")
        se = float(error) if isinstance(error, int | float) and math.isfinite(error) else NAN
        label = metric if kind == "none" else f"{metric} ({kind})"
        reach = 1.96 * se
        n = int(found.get("sample_len") or 0)
        cells.append(Cell("task", task, label, name, value, value - reach, value + reach, n, counts={"se": se}))
    return cells
