"""`align frontier`: reward against KL over a sweep of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.errors import UserError, unknown

RUNS = "Run folders, folders that hold runs (a sweep's), or JSON lines with a run each."
BY = "The setting that names a run's group, such as loss.name; several with commas. The method, and its loss."
THROUGH = "nondominated: points that no other of the group beats; all: every point, without the luck of a choice."
BAND = "seeds: over seeds and prompts, where each setting has several; prompts: over prompts alone; none."


def frontier(
    runs: Annotated[list[Path], typer.Argument(help=RUNS)],
    x: Annotated[str, typer.Option(help="An entry of summary.json, or a part of one: kl, length, steps.")] = "kl",
    y: Annotated[str, typer.Option(help="The same: score, score.difference, improved.chosen.score.")] = "score",
    by: Annotated[str | None, typer.Option(help=BY)] = None,
    through: Annotated[str, typer.Option(help=THROUGH)] = "nondominated",
    band: Annotated[str, typer.Option(help=BAND)] = "seeds",
    start: Annotated[bool, typer.Option(help="The untrained model, at KL 0, is a point of every group.")] = True,
    limits: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="KL between which areas are; where all groups have points.")
    ] = None,
    furthest: Annotated[float | None, typer.Option(min=0, help="KL up to which the picture goes.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    png: Annotated[Path | None, typer.Option(help="Write a picture here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write runs, points and frontiers as CSV here.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON here.")] = None,
) -> None:
    """KL–reward frontiers of a sweep, with areas and bands: align frontier outputs/dpo/SWEEP --png frontier.png."""
    from rich.console import Console

    from alignment.evaluation.files import write_atomically
    from alignment.evaluation.frontier import BANDS, THROUGH, frontiers
    from alignment.evaluation.frontier_plot import draw
    from alignment.evaluation.frontier_report import render, to_csv, to_dict
    from alignment.evaluation.frontier_runs import read_sweep

    for name, value, known in (("--through", through, THROUGH), ("--band", band, BANDS)):
        if value not in known:
            raise unknown(name, value, known)
    for file in (png, csv, json_file):
        if file is not None and not file.parent.is_dir():  # before the work, not after it
            raise UserError(f"cannot write {file}: there is no folder {file.parent}")
    options: dict[str, Any] = {"through": through, "band": band, "from_start": start, "limits": _limits(limits)}
    found = frontiers(read_sweep(runs, x=x, y=y, by=by), seed=seed, **options)
    render(found, Console())
    if png is not None:
        print(f"written to {write_atomically(png, draw(found, furthest))}")
    if csv is not None:
        print(f"written to {write_atomically(csv, to_csv(found))}")
    if json_file is not None:
        content = json.dumps(to_dict(found), indent=2, ensure_ascii=False, allow_nan=False)
        print(f"written to {write_atomically(json_file, content + chr(10))}")


def _limits(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--limits {text}: two numbers with a comma between, such as 2,10") from None
    if not low < high < float("inf"):
        raise UserError(f"--limits {text}: the first must be below the second")
    return low, high
