"""Python of a user's own, named by its place: losses, feedback and data formats that stay outside this package.

A recipe, a run folder or a feedback file may come from elsewhere, and naming Python is running it. So a command takes
only what its command line names; in Python, the caller may name anything.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from alignment.errors import UserError

_ALLOW = re.compile(r"(?:--)?allow=(.*)", re.DOTALL)
_TRUST = re.compile(r"(?:^|\.)trust_remote_code=(?:true|1|yes|on)$|^--trust-remote-code$", re.IGNORECASE)


@dataclass(frozen=True)
class _CommandLine:
    """What one command may import: the places that its words name."""

    words: tuple[str, ...]
    mend: str  # with {place}: how the command line names a place

    def names(self, place: str) -> bool:
        """Whether a word has `place` before a `:` (file.py:thing), as a whole file or package.module, or in allow."""
        whole = r"|$|[\s,\]})'\"]" if "." in place else ""
        named = re.compile(rf"(?:^|[=,\[{{\s'\"]){re.escape(place)}(?=:{whole})")
        for before, word in zip(("", *self.words), self.words, strict=False):
            listed = word if before == "--allow" else _after_allow(word)
            if place in re.split(r"[\s,\[\]'\"]+", listed) or named.search(word):
                return True
        return False

    def trusts_models(self) -> bool:
        """Whether a word asks for the code that comes with a model."""
        return any(_TRUST.search(word) for word in self.words)


def _after_allow(word: str) -> str:
    found = _ALLOW.match(word)
    return found[1] if found else ""


_command_line: _CommandLine | None = None  # None: no command runs, Python calls


@contextmanager
def only_named_on(words: Sequence[str], mend: str) -> Iterator[None]:
    """Within it, `import_named` takes only what one of the command line's `words` names; `mend` says how it does."""
    global _command_line
    before, _command_line = _command_line, _CommandLine(tuple(words), mend)
    try:
        yield
    finally:
        _command_line = before


def refuse_unasked_model_code(path: str) -> None:
    """Refuse `trust_remote_code` of the model at `path` where a file asks for it and the command line does not.

    Raises:
        UserError: it is a file's wish alone.
    """
    if _command_line is not None and not _command_line.trusts_models():
        raise UserError(
            f"model.path={path}: a file asks to run the model's own code (trust_remote_code), and the command line "
            "does not. If you trust it: add model.trust_remote_code=true to the command line"
        )


def import_named(place: str, what: str) -> ModuleType:
    """The module at `place`: `path/to/file.py`, relative to the current folder, or `package.module`.

    A file is read anew at each call. `what` begins the message of an error, such as "loss.name=mine.py:my_loss".

    Raises:
        UserError: the command line does not name it, no such file, or the error that reading it raises.
    """
    if _command_line is not None and not _command_line.names(place):
        mend = _command_line.mend.format(place=place)
        raise UserError(f"{what}: a file names this Python, and the command line does not. If you trust it: {mend}")
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
