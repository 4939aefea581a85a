"""Feedback by name: the `feedback` section of a run, or of a command -> an object with `score`, `prefer` or `review`.

Every kind is a dataclass whose fields are its settings. A setting that is itself feedback (`of` of a wrapper) is
written as a section of its own, with a name, and built first:

    name: both_orders
    of: {name: judge, path: smollm2-135m}
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from alignment.errors import UserError, nearest, unknown
from alignment.feedback.adapters import Function, as_feedback
from alignment.imports import import_named

# name -> module:class. Imported when asked for: some need packages that others do not.
KINDS: dict[str, str] = {
    "plain_words": "alignment.feedback.rules:PlainWords",
}


def build_feedback(settings: Mapping[str, Any] | str, where: str = "feedback") -> Any:
    """The feedback object that `settings` describes: a name, or a mapping of `name` and its settings.

    A name of the form path/to/file.py:thing or package.module:thing is one's own: a class with one of the three
    methods, or a function (prompt messages, completion, context mapping) -> float.

    Raises:
        UserError: an unknown name or setting, or what the kind itself refuses.
    """
    settings = {"name": settings} if isinstance(settings, str) else dict(settings)
    name = settings.pop("name", None)
    if not name:
        raise UserError(f"{where} needs a name: {nearest('', KINDS)}")
    kind = _find(str(name), where)
    given = {key: _nested(value, f"{where}.{key}") for key, value in settings.items()}
    if not inspect.isclass(kind):
        if given:
            raise UserError(f"{where}.{next(iter(given))}: {name} is a function, it takes no settings")
        return Function(kind)
    known = [field.name for field in dataclasses.fields(kind) if field.init] if dataclasses.is_dataclass(kind) else None
    for key in given:
        if known is not None and key not in known:
            raise UserError(f"{where}.{key}: {name} has no such setting; {nearest(key, known)}")
    try:
        return as_feedback(kind(**given))
    except TypeError as error:
        raise UserError(f"{where}.name={name}: {' '.join(str(error).split())}") from error


def _nested(value: Any, where: str) -> Any:
    if isinstance(value, Mapping) and "name" in value:
        return build_feedback(value, where)
    if isinstance(value, (list, tuple)):
        return [_nested(item, f"{where}[{number}]") for number, item in enumerate(value)]
    return value


def _find(name: str, where: str) -> Any:
    if name in KINDS:
        module, _, attribute = KINDS[name].partition(":")
        return getattr(import_module(module), attribute)
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise unknown(where, name, KINDS)
    module_object = import_named(place, f"{where}.name={name}")
    if not hasattr(module_object, attribute):
        raise UserError(f"{where}.name={name}: there is no {attribute} in {place}")
    return getattr(module_object, attribute)
