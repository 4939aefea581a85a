"""The HTML templates: pages that need nothing else, in one style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def template(name: str) -> Any:
    """A template of the folder templates/, which escapes whatever it is given."""
    # StrictUndefined: a name the template asks for and does not get is an error here, not a hole in the page.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
