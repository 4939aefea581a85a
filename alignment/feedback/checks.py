"""Wrong settings of feedback objects, refused when the object is built, and packages that are not there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from alignment.errors import UserError, nearest

INSTALL = 'pip install "alignment-toolkit[feedback]"'


class WrongSetting(UserError):
    """A setting that makes no sense; `build_feedback` puts the section's name before it."""

    def __init__(self, owner: Any, field: str, needed: str) -> None:
        self.setting = f"{field}={getattr(owner, field)}: {needed}"
        super().__init__(f"{type(owner).__name__}: {self.setting}")


_SECRET_KEY = re.compile(
    r"(?:^|_)(?:api_?key|access_?key|token|password|passwd|secret|authorization|bearer)$", re.IGNORECASE
)
_SECRET_URL = re.compile(r"://[^/@\s]*:[^/@\s]*@")


def refuse_secrets(tree: Any, where: str = "") -> None:
    """Refuse keys and passwords among settings, which are written into run folders, caches and cards.

    Raises:
        UserError: a setting with the name of a secret that holds a text, or a URL with a password in it; the message
            does not repeat it.
    """
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            place = f"{where}.{key}" if where else str(key)
            if isinstance(value, str) and value and _SECRET_KEY.search(str(key)):
                raise UserError(f"{place}: settings are written down, so they hold no keys; {_FROM_ENVIRONMENT}")
            if key == "api_key_env" and isinstance(value, str) and not value.isidentifier():
                raise UserError(f"{place} must be the name of an environment variable, such as OPENAI_API_KEY")
            refuse_secrets(str(key), where)
            refuse_secrets(value, place)
    elif isinstance(tree, (list, tuple)):
        for number, value in enumerate(tree):
            refuse_secrets(value, f"{where}[{number}]")
    elif isinstance(tree, str) and _SECRET_URL.search(tree):
        raise UserError(f"{where}: a URL with a password in it would be written down; {_FROM_ENVIRONMENT}")


_FROM_ENVIRONMENT = "put it into an environment variable, and name that one in api_key_env"


def number(
    owner: Any, field: str, low: float = -math.inf, high: float = math.inf, *, whole: bool = False, none: bool = False
) -> None:
    """Refuse a field that is no finite number in [low, high]; `none` lets None pass."""
    value = getattr(owner, field)
    if none and value is None:
        return
    kind = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if kind and math.isfinite(value) and low <= value <= high:
        return
    limits = f" of at least {low:g}" if low > -math.inf else ""
    limits = f" between {low:g} and {high:g}" if high < math.inf else limits
    raise WrongSetting(owner, field, f"a {'whole ' * whole}number{limits} is needed")


def choice(owner: Any, field: str, known: Iterable[str]) -> None:
    """Refuse a field that is none of the `known` names."""
    options = list(known)
    if getattr(owner, field) not in options:
        raise WrongSetting(owner, field, nearest(str(getattr(owner, field)), options))


def flag(owner: Any, *fields: str) -> None:
    """Refuse fields that are neither true nor false."""
    for field in fields:
        if not isinstance(getattr(owner, field), bool):
            raise WrongSetting(owner, field, "true or false is needed")


def text(owner: Any, *fields: str) -> None:
    """Refuse fields that are no text."""
    for field in fields:
        if not isinstance(getattr(owner, field), str):
            raise WrongSetting(owner, field, "a text is needed")


def numbers(owner: Any, field: str, of: int, low: float = -math.inf) -> None:
    """Refuse a field that is no list of `of` finite numbers of at least `low`."""
    value = getattr(owner, field)
    limits = f" of at least {low:g}" if low > -math.inf else ""
    fits = isinstance(value, (list, tuple)) and len(value) == of
    if not fits or not all(
        isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x) and x >= low for x in value
    ):
        raise WrongSetting(owner, field, f"a list of {of} numbers{limits} is needed, one for each of `of`")


def package(name: str, what: str) -> Any:
    """The optional package's module `name`; UserError that says how to install it where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{what} needs a package that is not installed ({error}): {INSTALL}") from error
