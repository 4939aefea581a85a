"""The raw data of a table: a JSONL file with a row for each job, which is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.files import json_lines

Row = dict[str, Any]


def key_of(settings: Mapping[str, Any], job: Mapping[str, Any]) -> str:
    return json.dumps([settings, job], sort_keys=True)


class Rows:
    """Rows by what they were made with: the settings of the scale, and the job."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            found = list(json_lines(file)) if file.is_file() else []
            _end_the_last_line(file)
        except OSError as error:
            raise UserError(f"cannot use {file}: {error.strerror or error}") from error
        self.known = {key_of(row["settings"], row["job"]): row for row in found if {"settings", "job"} <= row.keys()}

    def get(self, settings: Mapping[str, Any], job: Mapping[str, Any]) -> Row | None:
        """The row of a job, or None where it is still to be made."""
        return self.known.get(key_of(settings, job))

    def add(self, settings: Mapping[str, Any], job: Mapping[str, Any], found: Mapping[str, Any]) -> Row:
        """Write the row of a job, which is on disk when this returns."""
        row = json.loads(json.dumps({"job": job, "settings": settings, **found}))
        try:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.file}: {error.strerror or error}") from error
        self.known[key_of(settings, job)] = row
        return row


def _end_the_last_line(file: Path) -> None:
    """What a kill left of a row is ended, so that the next row is a line of its own."""
    if file.is_file() and file.stat().st_size:
        with file.open("r+b") as out:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")
