"""Is the run that goes on the one that was stopped? What a checkpoint remembers of its run, and the refusal."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignment.batching.groups import DIGEST_BYTES, Unit
from alignment.batching.stored import digests
from alignment.config import RunConfig
from alignment.errors import UserError

FILE = "run.json"
SHOWN = 8  # differences named one by one

# Settings that cannot change an update: names, places, what is measured and how often. Every other one refuses. The
# files of the data are free too, since the examples themselves are compared: a moved file is the same data.
FREE: tuple[str, ...] = (
    *("recipe", "description", "output_dir", "resume", "traceback", "allow", "model.name"),
    *("evaluation.", "reference.cache", "model.trust_remote_code", "model.allow_pickle"),
    *("data.path", "data.eval_path", "data.eval_split", "data.eval_limit", "data.workers", "data.cache"),
    *("training.logging_steps", "training.eval_steps", "training.save_steps", "training.save_total_limit"),
    *("training.report_to", "training.skip_nonfinite", "guard."),
)
# Settings that change how an update is computed and not what it is: allowed, with a note.
ROUNDING = (
    *("training.token_budget", "training.layout", "training.gradient_checkpointing"),
    *("model.attention", "reference.when", "rollout.batch_size"),
)
# The same of a run of several stages: what a finished stage read, sampled and measured is not looked at again.
FREE_BETWEEN_STAGES = tuple(key for key in FREE if not key.startswith(("data.", "evaluation.")))
ROUNDING_BETWEEN_STAGES = tuple(key for key in ROUNDING if key != "rollout.batch_size")


def write_stamp(
    folder: Path,
    config: RunConfig,
    examples: Sequence[str],
    processes: int,
    sharding: str = "none",
    dropout: bool = True,
) -> None:
    """Write what tells this run from another into the checkpoint `folder`.

    Args:
        examples: the `digests`.
        sharding: how its weights are cut, and so in which format it holds them: none | fsdp | deepspeed.
        dropout: whether the model draws random masks while it trains, each process its own.
    """
    spread = {"processes": processes, "sharding": sharding, "dropout": dropout}
    stamp = {**spread, "config": asdict(config), "examples": "".join(examples)}
    (folder / FILE).write_text(json.dumps(stamp, default=str, indent=1))


def check_settings(checkpoint: Path, config: RunConfig, processes: int, staged: bool = False) -> list[str]:
    """The differing settings that change no more than rounding, as `key: old -> new`.

    Args:
        checkpoint: or the folder of a run of several stages, which is then `staged`.

    Raises:
        UserError: settings or a number of processes with which the remaining steps would be other ones.
    """
    stamp = _read(checkpoint)
    changed, rounding = _settings(stamp["config"], config, staged)
    other, spread = _processes(stamp, processes)
    _refuse(checkpoint, other + changed)
    return spread + rounding


def check_run(
    checkpoint: Path, config: RunConfig, units: Sequence[Unit], processes: int, sharding: str = "none"
) -> list[str]:
    """`check_settings`, the format of the weights, and the training data by content.

    Raises UserError with every kind of difference.
    """
    stamp = _read(checkpoint)
    changed, rounding = _settings(stamp["config"], config)
    other, spread = _processes(stamp, processes)
    held = stamp.get("sharding", sharding)
    other += [] if held == sharding else [f"sharding: {held} -> {sharding}"]
    _refuse(checkpoint, other + changed + _examples(stamp["examples"], units))
    return spread + rounding


def _read(checkpoint: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((checkpoint / FILE).read_text())
        if not isinstance(stamp["config"], dict) or not isinstance(stamp["examples"], str) or "processes" not in stamp:
            raise ValueError("something else stands in it")
        return stamp
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"resume={checkpoint}: it has no readable {FILE}, so whether this is the same run cannot be told"
            "\nMend: start a new run; this checkpoint is of another version of the toolkit, or damaged"
        ) from error


def _refuse(checkpoint: Path, differences: Sequence[str]) -> None:
    if differences:
        more = [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
        raise UserError(
            f"resume={checkpoint}: not the same run any more: {'; '.join([*differences[:SHOWN], *more])}"
            "\nMend: resume without these changes, or start a new run with them"
        )


def _processes(stamp: Mapping[str, Any], processes: int) -> tuple[list[str], list[str]]:
    """(what refuses, what rounds): a step has the same examples over any number of them; each draws its own masks."""
    if stamp["processes"] == processes:
        return [], []
    change = f"processes: {stamp['processes']} -> {processes}"
    if stamp.get("sharding") == "deepspeed":  # a file for each process, of its own part
        return [f"{change} (DeepSpeed's checkpoints are cut for their number)"], []
    if stamp.get("dropout", True):
        return [f"{change} (dropout would be drawn anew)"], []
    return [], [change]


def _settings(saved: Mapping[str, Any], config: RunConfig, staged: bool = False) -> tuple[list[str], list[str]]:
    """(settings that make it another run, those that change rounding), as `key: old -> new`."""
    free, rounds = (FREE_BETWEEN_STAGES, ROUNDING_BETWEEN_STAGES) if staged else (FREE, ROUNDING)
    # A setting that the checkpoint's version did not have yet stood at its default.
    old = _dotted(json.loads(json.dumps(asdict(RunConfig())))) | _dotted(saved)
    new = _dotted(json.loads(json.dumps(asdict(config), default=str)))
    changed: list[str] = []
    rounding: list[str] = []
    for key in [*new, *(key for key in old if key not in new)]:
        before, now = old.get(key, "not set"), new.get(key, "not set")
        if before == now or key.startswith(free) or _moved(before, now, old["output_dir"], new["output_dir"]):
            continue
        (rounding if key in rounds else changed).append(f"{key}: {_shown(before)} -> {_shown(now)}")
    return changed, rounding


def _moved(before: Any, now: Any, old_folder: Any, new_folder: Any) -> bool:
    """Whether both are one path as seen from the run's folder, which was moved with all that is in it or beside it."""
    paths = (before, now, old_folder, new_folder)
    if not all(isinstance(path, str) and os.path.isabs(path) for path in paths):
        return False
    return os.path.relpath(before, old_folder) == os.path.relpath(now, new_folder)


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"training": {"epochs": 1}} -> {"training.epochs": 1}; lists are values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _examples(saved: str, units: Sequence[Unit]) -> list[str]:
    """How the training data differs from the checkpoint's, in one phrase; [] where it does not."""
    width = 2 * DIGEST_BYTES
    old, new = [saved[at : at + width] for at in range(0, len(saved), width)], digests(units)
    if old == new or not new:  # a stream's examples are compared where it goes on
        return []
    gone = (Counter(old) - Counter(new)).total()
    left = Counter(new) - Counter(old)
    added = left.total()
    if not gone and not added:
        return [f"the {len(new)} training examples stand in another order"]
    names = dict.fromkeys(unit.id for unit, digest in zip(units, new, strict=True) if digest in left)
    such_as = f", e.g. {', '.join([*names][:3])}" if names else ""
    if gone == added:
        return [f"{added} of {len(new)} training examples changed{such_as}"]
    return [f"training examples: {len(old)} -> {len(new)}, {gone} gone and {added} new{such_as}"]
