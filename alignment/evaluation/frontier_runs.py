"""Finished runs as points of a KL–reward plane: read from run folders, folders that hold runs, or JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.errors import UserError, unknown
from alignment.evaluation.compare import differences
from alignment.evaluation.compare import names as shortest
from alignment.evaluation.files import json_lines
from alignment.evaluation.statistics import mean_and_se
from alignment.evaluation.summary import NAME, read_config, read_samples, read_summary
from alignment.evaluation.table import dotted

BY = (
    "method",
    "loss.name",
)  # what groups are named by where nothing is asked for; parts that do not differ are dropped
NORMAL = 1.959964  # half a 95 % interval in standard errors
# What a run measured or was called, beside the settings, in a row of JSON lines.
_NO_SETTINGS = ("seconds", "finished", "tokens_per_second", "peak_memory_mb", "folder", "output_dir")
# Where these differ, KL and reward are not of the same thing; a note says so.
_SAME = ("model.name", "model.path", "model", "data.eval_path", "reference.path")


@dataclass(frozen=True)
class Value:
    """A mean with its standard error over the run's prompts (NaN: not known), in its own unit."""

    mean: float
    se: float = math.nan


@dataclass(frozen=True)
class Run:
    """One run's point. `scores` are its prompts' values of y, where they are kept; `prompts` names these prompts."""

    name: str
    group: str
    setting: str  # what tells it from the other runs of its group, the seed aside; empty: nothing does
    seed: str
    x: Value
    y: Value
    start: float = math.nan  # y before training
    scores: np.ndarray | None = None  # (prompts,), finite or NaN
    prompts: tuple[str, ...] = ()
    left_out: str = ""  # why it has no point

    @property
    def finite(self) -> bool:
        return not self.left_out


@dataclass
class Sweep:
    """The runs, and what has to be said about them."""

    runs: list[Run]
    x: str
    y: str
    y_name: str = ""  # of the score, where the runs name it
    by: tuple[str, ...] = BY
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A finished run as it was read: settings by dotted key, measurements, and its answers' rows."""

    name: str
    config: dict[str, str]
    summary: Mapping[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)


def read_sweep(paths: Sequence[Path | str], *, x: str = "kl", y: str = "score", by: str | None = None) -> Sweep:
    """The runs behind `paths`, each a run folder, a folder that holds runs, or a file of JSON lines.

    Args:
        paths: a row of JSON lines holds the entries of a summary.json and, beside them, settings as plain values.
        x, y: entries of summary.json: `kl`, `score`, `length`, or a part of one such as `score.difference`. Of an entry
            with several numbers, `after` is taken, or else `mean`.
        by: the setting, or several with commas between, that names a run's group. None: the method, and the loss where
            it differs.

    Raises:
        UserError: nothing finished there, no run has such numbers, a setting that no run has, or scores of several
            names, which have no unit in common.
    """
    found, notes = _found([Path(path) for path in paths])
    keys = _group_keys(found, by)
    groups: dict[str, list[_Found]] = {}
    for run in found:
        groups.setdefault(" ".join(run.config.get(key, "–") for key in keys), []).append(run)
    runs = []
    for group, members in groups.items():
        differing = [key for key in differences([run.config for run in members]) if key not in ("seed", *keys)]
        runs += [_run(run, group, differing, x, y) for run in members]
    runs, again = _once(runs)
    if not any(run.finite for run in runs):
        reasons = "; ".join(dict.fromkeys(run.left_out for run in runs))
        raise UserError(f"none of {len(runs)} runs has both {x} and {y}: {reasons}\nMend: {_mend(found, x, y)}")
    name = _score_name(found, y)
    return Sweep(runs, x, y, name, keys, notes + again + _incomparable(found, runs))


def _found(paths: Sequence[Path]) -> tuple[list[_Found], list[str]]:
    if not paths:
        raise UserError("no runs: name run folders, folders that hold runs, or files of JSON lines")
    folders: dict[Path, None] = {}
    unfinished: list[Path] = []
    rows: list[_Found] = []
    for path in paths:
        if path.is_file():
            rows += _rows(path)
            continue
        inside, begun = _walk(path) if path.is_dir() else ([path], [])
        if not inside and begun and begun != [path]:
            raise UserError(f"no finished run in {path}; not finished: {', '.join(run.name for run in begun)}")
        folders |= dict.fromkeys(inside or [path])  # nothing in it: read_summary says what is wrong with it
        unfinished += begun
    listed = list(folders)
    found = [
        _Found(name, dict(dotted(read_config(folder))), read_summary(folder), read_samples(folder))
        for folder, name in zip(listed, shortest(listed), strict=True)
    ]
    notes = [f"not finished, left out: {', '.join(path.name for path in unfinished)}"] if unfinished else []
    return found + rows, notes


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """(finished runs, runs without a summary) in `folder`, itself included; what lies inside a run is a part of it."""
    if (folder / NAME).is_file():
        return [folder], []
    if (folder / "config.yaml").is_file():
        return [], [folder]
    found: tuple[list[Path], list[Path]] = ([], [])
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.is_symlink() or child.name.startswith("."):
            continue
        finished, begun = _walk(child)
        found[0].extend(finished)
        found[1].extend(begun)
    return found


def _rows(file: Path) -> list[_Found]:
    rows = []
    for place, row in enumerate(json_lines(file), start=1):
        settings = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in row.items()
            if isinstance(value, (str, int, float)) and key not in _NO_SETTINGS
        }
        rows.append(_Found(f"{file.name}:{place}", settings, row))
    if not rows:
        raise UserError(f"{file}: no JSON lines in it; a row holds a run's settings and its kl and score")
    return rows


def _group_keys(found: Sequence[_Found], by: str | None) -> tuple[str, ...]:
    known = dict.fromkeys(key for run in found for key in run.config)
    if by is None:
        present = [key for key in BY if key in known]
        return tuple(key for key in present if len({run.config.get(key) for run in found}) > 1) or tuple(present[:1])
    keys = tuple(key.strip() for key in by.split(","))
    for key in keys:
        if key not in known:
            raise unknown("setting in --by", key, known)
    return keys


def _once(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Of runs with the same setting and seed the last: one made again is no second seed."""
    kept = {(run.group, run.setting, run.seed if run.seed != "–" else run.name): run for run in runs}
    again = len(runs) - len(kept)
    return list(kept.values()), [f"{again} runs repeat a setting and its seed: the last one counts"] if again else []


def _run(found: _Found, group: str, differing: Sequence[str], x: str, y: str) -> Run:
    setting = ", ".join(f"{key.rpartition('.')[2]}={found.config.get(key, '–')}" for key in differing)
    across, up = _value(found.summary, x), _value(found.summary, y)
    scores, prompts = _scores(found.samples) if y == "score" else (None, ())
    if scores is not None and up is not None:
        up = Value(up.mean, mean_and_se(scores[np.isfinite(scores)]).se)
    missing = [name for name, value in ((x, across), (y, up)) if value is None or not math.isfinite(value.mean)]
    return Run(
        found.name,
        group,
        setting,
        found.config.get("seed", "–"),
        across or Value(math.nan),
        up or Value(math.nan),
        _before(found.summary, y),
        scores,
        prompts,
        f"no finite {' and '.join(missing)}" if missing else "",
    )


def _value(summary: Mapping[str, Any], name: str) -> Value | None:
    """The number that `name` stands for, with the standard error that its entry gives or its interval implies."""
    entry: Any = summary
    *above, last = name.split(".")
    for key in above:
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or last not in entry:
        return None
    value = entry[last]
    if isinstance(value, Mapping):
        entry, last = value, "after" if "after" in value else "mean"
        value = entry.get(last)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # The interval of an entry is that of its difference; it also holds the chance in the answers before training.
    ends = next((entry[key] for key in (f"{last}_ci95", "ci95") if isinstance(entry.get(key), list)), None)
    error = entry.get("se") if ends is None else (ends[1] - ends[0]) / (2 * NORMAL)
    return Value(float(value), math.nan if error is None else float(error))


def _before(summary: Mapping[str, Any], name: str) -> float:
    entry = summary.get(name)
    before = entry.get("before") if isinstance(entry, Mapping) else None
    return float(before) if isinstance(before, (int, float)) else math.nan


def _scores(samples: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Each prompt's score after training, and the prompts; nothing where samples.jsonl has none."""
    if not any(isinstance(row.get("score_after"), (int, float)) for row in samples):
        return None, ()
    values = [row.get("score_after") for row in samples]
    scores = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
    return scores, tuple(str(row.get("prompt", "")) for row in samples)


def _score_name(found: Sequence[_Found], y: str) -> str:
    """The name of the score, which all runs must share: numbers of several scores have no unit in common."""
    entries = [run.summary.get(y.partition(".")[0]) for run in found]
    named = {str(entry["name"]): None for entry in entries if isinstance(entry, Mapping) and "name" in entry}
    if len(named) > 1:
        raise UserError(
            f"the runs' {y} are of different kinds ({', '.join(sorted(named))}): their numbers cannot be compared\n"
            "Mend: name runs with the same evaluation.score"
        )
    return next(iter(named), "")


def _incomparable(found: Sequence[_Found], runs: Sequence[Run]) -> list[str]:
    differing = [
        key
        for key in differences([run.config for run in found])
        if key in _SAME or (key.startswith("evaluation.") and not key.endswith((".shown", ".batch_size")))
    ]
    notes = [f"the runs differ in {', '.join(differing)}: KL or reward is not of the same thing"] if differing else []
    asked = [set(run.prompts) for run in runs if run.prompts]
    if asked and any(prompts != asked[0] for prompts in asked):
        common, total = len(set.intersection(*asked)), len(set.union(*asked))
        notes.append(f"not all runs were asked the same prompts: {common} of {total} are common to all")
    return notes


def _mend(found: Sequence[_Found], x: str, y: str) -> str:
    entries = {key for run in found for key, value in run.summary.items() if isinstance(value, Mapping)}
    known = sorted(entry for entry in entries if any(_value(run.summary, entry) for run in found))
    hint = f"the runs have {', '.join(known)}" if known else "the runs have no such numbers"
    if "score" in (x, y) and "score" not in known:
        hint += "; a score needs evaluation.score"
    return hint
