"""One file a table; each has a `TABLE`."""

from __future__ import annotations

from importlib import import_module

from alignment.errors import unknown
from alignment.reproduce.table import Table

NAMES = (
    "dpo_sentiment",
    "p3o",
    "nash_md",
    "cut",
    "pit",
    "direct_alignment",
    "alpaca_farm",
    "diversity",
    "ratings",
)


def table_named(name: str) -> Table:
    """A table by its name; UserError where there is none of it."""
    if name not in NAMES:
        raise unknown("table", name, NAMES)
    return import_module(f"alignment.reproduce.tables.{name}").TABLE
