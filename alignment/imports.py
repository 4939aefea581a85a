"""Python of a user's own, named by its place: losses and data formats that stay outside this package."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from alignment.errors import UserError


def import_named(place: str, what: str) -> ModuleType:
    """The module at `place`: `path/to/file.py`, relative to the current folder, or `package.module`.

    A file is read anew at each call. `what` begins the message of an error, such as "loss.name=mine.py:my_loss".

    Raises:
        UserError: no such file, or the error that reading it raises.
    """
    path = Path(place).expanduser()
    if path.suffix == ".py" and not path.is_file():
        raise UserError(f"{what}: no file {place}")
    try:
        if path.suffix != ".py":
            return importlib.import_module(place)
        name = str(path.resolve())  # hides no module: `random.py` of a user stays apart from Python's own
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where a dataclass in the file looks for its annotations
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:  # whatever one's own file raises while it is read
        reason = " ".join(str(error).split())
        raise UserError(f"{what}: cannot be imported: {type(error).__name__}: {reason}") from error
