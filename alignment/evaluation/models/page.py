"""An evaluation as one page that needs nothing else: the tables, the pairs of models, and the answers side by side."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.evaluation.files import write_atomically
from alignment.evaluation.models.cells import NAN
from alignment.evaluation.models.outcome import Evaluation
from alignment.evaluation.models.tables import Table
from alignment.evaluation.page import template
from alignment.evaluation.sample_browser import PAGE, Side, entry
from alignment.evaluation.text import NOTHING, visible

NAME = "report.html"
MOST = 500  # prompts whose answers are on the page


def write_page(found: Evaluation, pictures: Mapping[str, bytes]) -> Path:
    """Write report.html; whatever a model or a user wrote is escaped, and control characters are written out.

    Args:
        pictures: title -> PNG.
    """
    samples, scored = _samples(found)
    order = _order(found)
    page = template("eval.html.j2").render(
        title=visible(found.title),
        facts=[("baseline", visible(found.baseline)), ("prompts", visible(found.asked.name))],
        tables=[_table(table) for table in found.tables],
        pictures=[_picture(title, png) for title, png in pictures.items()],
        notes=[visible(note) for note in found.notes],
        samples=samples,
        told=_told(found, scored),
        labels=[visible(found.models[place].of.name) for place in order],
        left_out=max(0, len(found.asked) - MOST),
        scored=scored,
        first_page=PAGE,
        data={"samples": samples, "charts": []},
    )
    return write_atomically(found.folder / NAME, page)


def _told(found: Evaluation, scored: bool) -> str:
    """What the answers on the page are, where there is more than one answer to a prompt, or more than one score."""
    several = any(one.most > 1 for one in found.models)
    lines = ["The first answer to each prompt."] if several else []
    lines += [f"Scores are those of {visible(next(iter(found.scores)))}."] if scored and len(found.scores) > 1 else []
    return " ".join(lines)


def _table(table: Table) -> dict[str, Any]:
    """Cells as (value, what stands in brackets behind it)."""
    rows = []
    for name, *cells in table.rows:
        cut = [cell.partition(" [") for cell in cells]
        rows.append([name, *((value or NOTHING, f"[{bounds}" if bounds else "") for value, _, bounds in cut)])
    return {"title": table.title, "columns": [" ".join(each.split("\n")) for each in table.columns], "rows": rows}


def _order(found: Evaluation) -> list[int]:
    """The models' places, the baseline first: the others' answers are held against its."""
    places = range(len(found.models))
    return sorted(places, key=lambda place: found.models[place].of.name != found.baseline)


def _samples(found: Evaluation) -> tuple[list[dict[str, Any]], bool]:
    """(the first answers to each prompt that some model has answered, whether a change of the score is known)."""
    scores: Mapping[str, Any] = next(iter(found.scores.values()), {})
    samples = []
    for at, prompt in enumerate(found.asked.prompts[:MOST]):
        sides = []
        for place in _order(found):
            one = found.models[place]
            said = one.said[at][0] if one.said[at] else None
            score = scores[one.of.name][at][0] if said and one.of.name in scores else NAN
            tokens = None if said is None or said.ids is None else len(said.ids)
            sides.append(Side("" if said is None else said.text, tokens, None if math.isnan(score) else score))
        samples.append(entry(at + 1, prompt[-1]["content"], sides))
    return samples, any(change for sample in samples for change in sample["changes"])


def _picture(title: str, png: bytes) -> dict[str, Any]:
    width = struct.unpack(">I", png[16:20])[0]  # of a PNG's header
    data = base64.b64encode(png).decode()
    return {"title": visible(title), "light": f"data:image/png;base64,{data}", "width": round(width / 1.2)}
