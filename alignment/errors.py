"""The one error a user is meant to see, and the hint that names the nearest known thing."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one or two lines that name the thing and the mend.

    Every entry point prints it as ``error: …`` without a traceback and exits with code 2.
    """


class Interrupted(Exception):
    """SIGTERM was seen and agreed on by every rank: what was computed is saved, the process exits with code 143."""


def impossible_name(error: OSError) -> UserError | None:
    """The UserError for a name that no file can have, or that leads in a circle; None for any other error."""
    if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
        return None
    return UserError(f"{error.strerror}: {str(error.filename)[:80]}")


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """The hint behind a wrong name: ``did you mean …?`` or, where nothing is near, the known names."""
    options = sorted({str(option) for option in known})
    close = difflib.get_close_matches(str(name), options, n=most, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(options)}" if options else "none is known"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """``unknown loss 'sigmiod': did you mean sigmoid?``"""
    return UserError(f"unknown {kind} '{name}': {nearest(name, known)}")
