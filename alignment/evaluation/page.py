"""The HTML templates: pages that need nothing else, in one style, with one script."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> Any:
    """A template of the folder templates/, which escapes whatever it is given.

    `| tojson` writes data for the page's script: `<`, `>`, `&`, `'` and whatever is not ASCII are escaped, and NaN is
    an error. The script is page.js; the page's content policy names its digest, so that no other one runs.
    """
    # StrictUndefined: a name the template asks for and does not get is an error here, not a hole in the page.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(script=Markup(script), script_digest=Markup(digest))
    return environment.get_template(name)
