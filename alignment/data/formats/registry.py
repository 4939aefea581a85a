"""Which format a row is in. The order below is part of the contract: the first format that claims a row has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from alignment.data.example import Example
from alignment.data.formats import (
    alpaca,
    conversational,
    critiques,
    cut,
    evaluation_pairs,
    example_record,
    fine_grained,
    grading,
    hh,
    incomplete,
    judged_pairs,
    labelled_answers,
    oasst,
    openai_summaries,
    prompt_only,
    rankings,
    ratings,
    sharegpt,
    standard,
    ultrafeedback,
    unpaired,
)
from alignment.data.formats.common import Row, RowError
from alignment.data.formats.own import OwnFormat
from alignment.errors import UserError, nearest


class Format(Protocol):
    """A module of this folder, or one's own. `parse` gives None for "not mine", RowError for "mine, and unusable"."""

    @property
    def NAME(self) -> str: ...
    @property
    def DESCRIPTION(self) -> str: ...
    def parse(self, row: Row) -> Example | list[Example] | None: ...


# From the most particular to the most general, since a general layout's fields are often among a particular one's.
ORDER: tuple[Format, ...] = (
    example_record,
    incomplete,
    hh,
    ultrafeedback,
    oasst,
    fine_grained,
    grading,
    cut,
    judged_pairs,
    evaluation_pairs,
    labelled_answers,
    openai_summaries,
    sharegpt,
    alpaca,
    rankings,
    critiques,
    ratings,
    conversational,
    standard,
    unpaired,
    prompt_only,
)
BY_NAME = {module.NAME: module for module in ORDER if module is not incomplete}


def choose(name: str) -> tuple[Format, ...]:
    """The formats that a row may be in, in the order in which they are asked.

    Args:
        name: "auto" for all that are known; the name of one; or the place of one's own, which ends in .py or has a
            dot in it: `path/to/file.py`, `package.module`.

    Raises:
        UserError: no such name (the nearest are named), or a file that is no format.
    """
    if name == "auto":
        return ORDER
    if name in BY_NAME:
        return (BY_NAME[name],)
    if "." in name:
        return (OwnFormat(name),)
    raise UserError(f"unknown data format '{name}': {nearest(name, ['auto', *BY_NAME])}")


def parse_row(row: Row, formats: Sequence[Format] = ORDER) -> tuple[str, list[Example]]:
    """(format name, its examples: one for nearly every format) of one row.

    Raises:
        RowError: in none of the formats (kind "unknown format"), or unusable in the one that it is in.
    """
    for module in formats:
        found = module.parse(row)
        if found is not None:
            return module.NAME, found if isinstance(found, list) else [found]
    which = "in no known format" if len(formats) > 1 else f"not in the format '{formats[0].NAME}'"
    raise RowError(f"{which}: it has the fields {shown_keys(row)}", "unknown format")


def shown_keys(keys: Iterable[object], most: int = 12) -> str:
    """Field names for a message, in the row's order, shortened."""
    names = [str(key)[:40] for key in keys]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "(none)"
