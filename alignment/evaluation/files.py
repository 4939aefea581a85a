"""Files of a run folder: written whole or not at all, and JSONL read row by row."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to a temporary file in the same folder, then rename it to `path`.

    Raises:
        UserError: the folder is missing or not writable, or the disk is full.
    """
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Lines end at a newline only; a broken one (an interrupted write) is passed over."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row
