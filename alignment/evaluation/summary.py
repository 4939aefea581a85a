"""summary.json, the end-of-run table for machines, and the same table for the terminal.

Keys: recipe, model, seed, steps, seconds, score {name, before, after, difference, ci95, prompts}, feedback (what an
online run was trained on, where that is not the score: the same keys, or of a judge {name, wins, ci95, prompts}), pairs
{accuracy, margin, n} (for methods on single answers: answers), kl {mean, se} (nats per answer), length {before, after}
(tokens), fluency {before, after} (mean log-prob per token under the reference, nats), tokens_per_second,
peak_memory_mb, method, data, versions, finished. Of imitated answers: imitation {before, after, difference, ci95} (nats
per token). Of judged answers: judged {satisfactory, unsatisfactory, margin, wrong, right, right_first}, each {before,
after, difference, ci95, answers} (nats per token; the last one a share). Of a model that ranks answers: ranking
{before, after, difference, ci95, after_ci95, pairs}, calibration {ece, bins}, by_length, judge_sets {set: {accuracy, n,
ci95, ece, left_out}}; of a gap model also gaps {wl > ww, …, all five, |ww - ll|}, each {before, after, difference,
ci95, after_ci95, pairs} (shares of pairs; the last one the score's unit). Of an improver: improved {rejected, chosen},
each {score, won}, each of these {before, after, difference, ci95, answers}. Of a run with a critic: satisfied {name,
prompts, before, after, difference, ci95} (shares), and iterations [{iteration, …, satisfied}] of recipe=cut_online. Of
recipe=ilf: refined {asked, refined, unchanged, empty, cut, too_long}. Of every run that made a model: provenance, as
evaluation/provenance.py has it. A key is absent where it has no meaning.
The file is written last: a run folder without it is not a finished run.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from alignment.errors import UserError, nearest
from alignment.evaluation.files import json_lines, write_atomically
from alignment.evaluation.row import Row
from alignment.evaluation.table import rows, title
from alignment.evaluation.text import NOTHING, decimal, number, shortened, visible
from alignment.yaml_files import read_yaml

NAME = "summary.json"
_STYLES = {"good": "green", "bad": "bold red", "plain": ""}


def write_summary(folder: Path | str, summary: Mapping[str, Any]) -> Path:
    """Write summary.json beside its place and rename it, so that a reader sees the whole file or none.

    Numbers of numpy and torch become plain ones, NaN and infinite ones become null. `finished` (UTC, ISO 8601) is added
    unless it is given.
    """
    stamp = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    plain = {**_plain(summary), "finished": summary.get("finished", stamp)}
    return write_atomically(
        Path(folder) / NAME, json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def _plain(value: Any) -> Any:
    """`value` as what JSON holds; scalars of numpy and torch through their `item`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


def read_summary(folder: Path | str) -> dict[str, Any]:
    """The summary of a finished run.

    Raises:
        UserError: the folder is missing, is no run, is a run that has not finished, or its summary is broken.
    """
    folder = Path(folder)
    path = folder / NAME
    if not folder.is_dir():
        raise UserError(f"no run folder {folder}{_near(folder)}")
    if not path.is_file():
        if (folder / "config.yaml").is_file():
            saved = any((folder / "checkpoints").glob("checkpoint-*"))
            mend = f"; continue it with resume={folder}" if saved else ", and no checkpoint to continue from"
            raise UserError(f"run {folder} is not finished: it has no {NAME}{mend}")
        raise UserError(f"{folder} is not a run folder: it has no {NAME}{_near(folder)}")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); the run has to be evaluated again") from error
    if not isinstance(summary, dict):
        raise UserError(f"{path} holds a {type(summary).__name__}, not an object of named numbers")
    return summary


def read_config(folder: Path | str) -> dict[str, Any]:
    """config.yaml of a run as plain dictionaries and lists; empty where it is missing."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        return {}
    config = read_yaml(path)
    return config if isinstance(config, dict) else {}


def _near(folder: Path) -> str:
    """Finished runs inside the folder, else the nearest ones beside it, as the end of an error message."""
    inside = _finished_runs(folder)
    if inside:
        return f"\nruns in it: {', '.join(str(run) for run in inside[-3:])}"
    beside = [run for run in _finished_runs(folder.parent) if run != folder]
    if not beside:
        return ""
    names = [run.name for run in beside]
    hint = nearest(folder.name, names) if len(names) > 3 else f"finished runs: {', '.join(names)}"
    return f"\n{hint} (in {folder.parent})"


def _finished_runs(parent: Path) -> list[Path]:
    try:
        return sorted(path.parent for path in parent.glob(f"*/{NAME}"))
    except OSError:
        return []


def read_samples(folder: Path | str) -> list[dict[str, Any]]:
    """The rows of samples.jsonl; none where the run took no samples. A line that is not an object is left out."""
    path = Path(folder) / "samples.jsonl"
    return list(json_lines(path)) if path.is_file() else []


def render_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print the before/after table; below it, what is to be said about the score and about fluency."""
    table = Table(title=title(summary), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=False)
    for heading in ("before", "after", "difference", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    lines = rows(summary)
    for row in lines:
        style = _STYLES[row.tone]
        table.add_row(
            Text(row.label),
            Text(row.before),
            Text(row.after, style=style if not row.difference else ""),
            Text(row.difference, style=style),
            Text(row.interval),
        )
    console.print(table)
    for row in lines:
        if row.reading and (row.key == "score" or row.tone == "bad"):
            console.print(_note(row))


def _note(row: Row) -> RenderableType:
    return Text.assemble(
        (f"{row.label}: " if row.key != "score" else "score: ", "bold"), (row.reading, _STYLES[row.tone])
    )


def render_samples(samples: Iterable[Mapping[str, Any]], console: Console, shown: int = 6) -> None:
    """Print `shown` answers side by side: the prompt, then the answer before and after training.

    Model text is data: rich markup and control characters in it are shown as they stand.
    """
    for sample in list(samples)[: max(0, shown)]:
        console.print(_sample(sample, console.width))


def _sample(sample: Mapping[str, Any], width: int) -> RenderableType:
    most = 12 * max(20, width // 2)  # about twelve lines of a column
    prompt = Text(shortened(visible(sample.get("prompt", "")).strip(), 4 * width), style="bold")
    grid = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    cells = []
    for side in ("before", "after"):
        grid.add_column(_heading(sample, side), ratio=1, overflow="fold")
        answer = visible(sample.get(side, "")).strip()
        cells.append(Text(shortened(answer, most)) if answer else Text("(empty)", style="dim"))
    grid.add_row(*cells)
    return Group(Rule(style="dim"), prompt, Padding(grid, (0, 0, 1, 0)))


def _heading(sample: Mapping[str, Any], side: str) -> Text:
    """`after: 37 tokens, score +0.82`."""
    facts = []
    if number(sample.get(f"tokens_{side}")) is not None:
        facts.append(f"{decimal(sample[f'tokens_{side}'], 0)} tokens")
    score = decimal(sample.get(f"score_{side}"), sign=True)
    if score != NOTHING:
        facts.append(f"score {score}")
    return Text.assemble((side, "bold"), (f": {', '.join(facts)}" if facts else "", "dim"))
