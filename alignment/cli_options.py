"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Format = Annotated[
    str, typer.Option(help="A format's name, a path/to/format.py of your own, or auto: decided row by row.")
]
Split = Annotated[str, typer.Option(help="Which split of a folder, hub id or built-in set.")]
Out = Annotated[Path, typer.Argument(help="The file to write, .jsonl; what is there of the same work is gone on with.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Begin anew, whatever is there.")]
