"""Standard benchmarks, by lm-eval where it is installed: nothing of them is written anew here."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignment.errors import UserError
from alignment.evaluation.files import write_atomically
from alignment.evaluation.models.cells import NAN, Cell
from alignment.evaluation.models.prompts import digest
from alignment.evaluation.models.sampled import slug
from alignment.evaluation.models.weights import Weights
from alignment.models.loading import adapters_of, base_of_adapter, resolve
from alignment.resumable import OneProcess

INSTALL = "pip install lm-eval"


def harness() -> Any:
    """The package `lm_eval`; UserError that says how to install it where it is missing."""
    try:
        import lm_eval
    except ImportError as error:
        raise UserError(f"--tasks needs a package that is not installed ({error}): {INSTALL}") from error
    return lm_eval


def task_cells(
    name: str, weights: Weights, tasks: Sequence[str], folder: Path, limit: int | None, processes: OneProcess
) -> list[Cell]:
    """The metrics of each task and of its groups' means, as lm-eval gives them, with its standard errors.

    They are kept in FOLDER/tasks by weights, tasks and limit, and measured once.

    Raises:
        UserError: a stack of adapters, which lm-eval does not load; an unknown task; or what else it refuses.
    """
    key = digest("tasks", weights.key, sorted(tasks), limit)
    path = folder / "tasks" / f"{slug(weights.spec)}-{key}.json"
    kept = processes.on_first(lambda: json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None)
    if kept is None:
        kept = _measured(weights, tasks, limit)
        if processes.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(kept, indent=1, default=str) + "\n")
    return [cell for task, found in kept.items() for cell in _cells(name, task, found)]


def _measured(weights: Weights, tasks: Sequence[str], limit: int | None) -> dict[str, Any]:
    package, device = harness(), "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"limit": limit, "device": device, "log_samples": False}
    try:
        found = package.simple_evaluate(model="hf", model_args=model_arguments(weights), tasks=list(tasks), **options)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"--tasks {','.join(tasks)}: lm-eval refuses: {' '.join(str(error).split())[:300]}") from error
    return {} if found is None else dict(found["results"])  # it gives results to the first process alone


def model_arguments(weights: Weights) -> dict[str, Any]:
    """What lm-eval's transformers model takes: the folder or hub id, and an adapter beside it."""
    folder = resolve(weights.spec)
    adapters = adapters_of(folder)
    if len(adapters) > 1:
        raise UserError(
            f"--tasks: {weights.spec} is an adapter on an adapter, which lm-eval does not load"
            f"\nMend: align export {weights.spec} FOLDER, and give that folder"
        )
    if not adapters:
        return {"pretrained": folder, "dtype": weights.config.dtype}
    return {"pretrained": base_of_adapter(Path(folder)), "peft": folder, "dtype": weights.config.dtype}


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
