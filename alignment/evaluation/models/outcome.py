"""An evaluation that is done, and the files that it leaves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.evaluation.files import write_atomically
from alignment.evaluation.metrics.ranking import Standing, models_of, pairwise_matrix
from alignment.evaluation.models.answers import Answers
from alignment.evaluation.models.cells import Cell, plain
from alignment.evaluation.models.duels import Duel, Scores
from alignment.evaluation.models.judged import games
from alignment.evaluation.models.prompts import PromptSet, digest
from alignment.evaluation.models.tables import Table, markdown

JSON, CSV, MARKDOWN = "eval.json", "eval.csv", "table.md"


@dataclass
class Evaluation:
    """What was found.

    Attributes:
        cells: every number.
        scores: of each reward, the score of every answer, by model.
        duels: of each judge, every two models compared.
        standings: of each judge, the ranking; empty for fewer than three models.
        tables: the cells as they are shown.
        notes: what a reader must know about them.
        failures: of each reward or judge that failed, why; its other verdicts are none.
    """

    folder: Path
    asked: PromptSet
    models: list[Answers]
    baseline: str
    settings: Mapping[str, Any]
    cells: list[Cell]
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    duels: dict[str, list[Duel]] = field(default_factory=dict)
    standings: dict[str, list[Standing]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        source = Path(self.asked.name)
        prompts = source.name if source.exists() else self.asked.name  # of a file, not where it lies on this machine
        return f"{', '.join(one.of.name for one in self.models)} on {len(self.asked):,} prompts of {prompts}"

    def cell(self, metric: str, model: str, of: str = "") -> Cell:
        """The cell of a metric and a model; `of` is the score, judge or task. KeyError where there is none."""
        for cell in self.cells:
            if (cell.metric, cell.model, cell.of) == (metric, model, of):
                return cell
        raise KeyError((metric, model, of))

    def matrix(self, judge: str) -> tuple[list[str], np.ndarray]:
        """(K models, win rates of the row's model against the column's (K, K), NaN where they were not compared)."""
        outcomes = games(self.duels[judge], len(self.asked))
        return models_of(outcomes), pairwise_matrix(outcomes)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; NaN is null."""
        models = [
            {"name": one.of.name, "spec": one.of.spec, "stored": one.of.stored, "answers": self._within(one.file)}
            | {"prompts answered": len(one.said) - one.missing, "most answers to a prompt": one.most}
            for one in self.models
        ]
        judges = {}
        for name in self.duels:
            names, rates = self.matrix(name)
            ranks = [asdict(each) for each in self.standings.get(name, [])]
            judges[name] = {"models": names, "matrix": rates.tolist(), "ranking": ranks}
        prompts = {"source": self.asked.name, "prompts": len(self.asked), "digest": digest(self.asked.prompts)}
        return plain(
            {
                "prompts": prompts,
                "models": models,
                "baseline": self.baseline,
                "settings": dict(self.settings),
                "cells": [cell.to_dict() for cell in self.cells],
                "judges": judges,
                "notes": self.notes,
                "failures": self.failures,
            }
        )

    def _within(self, file: str) -> str:
        """The file's place in the folder, where it lies in it, so that the folder may be moved."""
        path = Path(file)
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else file

    def write(self) -> None:
        """Write eval.json, eval.csv and table.md."""
        content = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, default=str)
        write_atomically(self.folder / JSON, content + "\n")
        write_atomically(self.folder / CSV, csv_of(self.cells))
        write_atomically(self.folder / MARKDOWN, markdown(self.tables, self.notes, self.title))


def csv_of(cells: Sequence[Cell]) -> str:
    """One row a cell, with a column for each of its counts."""
    rows = [cell.to_dict() for cell in cells]
    counts = list(dict.fromkeys(key for row in rows for key in row["counts"]))
    columns = [key for key in Cell.__dataclass_fields__ if key != "counts"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*columns, *counts])
    for row in rows:
        writer.writerow([*(row[key] for key in columns), *(row["counts"].get(key) for key in counts)])
    return buffer.getvalue()
