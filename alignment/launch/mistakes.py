"""Hydra's and OmegaConf's complaints, retold in one or two lines that name the key and its nearest neighbours."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignment.config import RunConfig
from alignment.errors import UserError, unknown
from alignment.launch.assets import FREE_FORM, Catalogue

OWN = {
    "model": "any other model: model.path=FOLDER|HUB-ID|FILE.gguf",
    "data": "your own data: data.path=FILE|FOLDER|GLOB|HUB-ID",
    "loss": "your own: name: FILE.py:FUNCTION in a file loss/NAME.yaml of a folder given as --config-dir",
}
EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}


def no_recipe(recipes: Iterable[str]) -> UserError:
    """The command line names no recipe."""
    return UserError(f"no recipe: give recipe=NAME or recipe=FILE.yaml\nrecipes: {', '.join(sorted(recipes))}")


def wrong_option(group: str, value: Any, options: Mapping[str, Path]) -> UserError:
    """A group has no such option; for a model or a data set the way to one's own is added."""
    error = unknown(group, str(value), options)
    if group == "recipe":
        return UserError(f"{error}\nrecipes: {', '.join(sorted(options))}; or recipe=path/to/FILE.yaml")
    return UserError(f"{error}\n{OWN[group]}") if group in OWN else error


def broken_override(line: str, error: Exception) -> UserError:
    """An argument that Hydra's grammar does not take."""
    if "=" not in line and not line.startswith("~"):
        return UserError(f"'{line}' is not an override: write key=value, such as training.learning_rate=1e-5")
    reason = _sentence(str(error))
    quoting = "quote a value with special characters for the shell and once more: 'key=\"value\"'"
    return UserError(f"cannot read the override '{line}': {reason}\n{quoting}")


def known_keys(tree: DictConfig) -> list[str]:
    """The dotted keys of a composed configuration, sections included; free-form values are not entered."""
    keys: list[str] = []
    for name, node in _plain(tree).items():
        keys.append(name)
        if name in FREE_FORM or dataclasses.is_dataclass(_types().get(name)):
            keys.extend(f"{name}.{key}" for key in node)
    return keys


def refuse_unknown_keys(tree: DictConfig) -> None:
    """`+key=value` adds whatever it is told to; a key that no part of a run reads is a mistake all the same."""
    known = set(_types())
    for key in known_keys(tree):
        if key not in known and key.partition(".")[0] not in FREE_FORM:
            raise unknown_key(key, known)


def unknown_key(key: str, known: Iterable[str]) -> UserError:
    """``unknown key 'learning_rate': did you mean training.learning_rate?``"""
    near = nearest_keys(key, known)
    if near:
        return UserError(f"unknown key '{key}': did you mean {' or '.join(near)}?")
    section = key.rpartition(".")[0]
    inside = sorted({k for k in known if k.startswith(f"{section}.")}) if section else []
    return UserError(f"unknown key '{key}': known: {', '.join(inside or sorted({k for k in known if '.' not in k}))}")


def nearest_keys(key: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The keys most like `key`: its last part at another level, then its spelling within its section, then anywhere."""
    names = sorted(set(known))
    section, _, leaf = key.rpartition(".")
    leaves: dict[str, list[str]] = {}
    for name in names:
        leaves.setdefault(name.rpartition(".")[2], []).append(name)
    siblings = [name.removeprefix(f"{section}.") for name in names if section and name.startswith(f"{section}.")]
    near = list(leaves.get(leaf, []))
    near += [f"{section}.{match}" for match in difflib.get_close_matches(leaf, siblings, n=most, cutoff=0.6)]
    if not near:
        for match in difflib.get_close_matches(leaf, leaves, n=most, cutoff=0.75):
            near += leaves[match]
    return list(dict.fromkeys(near))[:most]


def explain(error: Exception, lines: Sequence[str], known: Sequence[str], files: Catalogue) -> UserError:
    """The UserError for what Hydra raised while composing `lines`."""
    text = str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    source = _source(text, files)
    if missing := re.search(r"Could not find '([\w-]+)/([^']+)'", text):
        group, option = missing.groups()
        if group == "recipe" or group in files.groups:
            return UserError(f"{_recipe_in(lines, files)}{wrong_option(group, option, files.options(group))}")
    if match := re.search(r"Could not override '([^']+)'", text):
        return UserError(f"{source}{unknown_key(match.group(1), [*known, *files.groups])}")
    full_key = getattr(cause, "full_key", None) or _search(r"full_key: (\S+)", text)
    if full_key:
        if re.search(r"not in '|is not in struct", f"{text}\n{cause}"):
            return UserError(f"{source}{unknown_key(full_key, known)}")
        return wrong_value(full_key, _given(full_key, lines), str(cause), source)
    return UserError(f"{source}{_sentence(text)}")


def wrong_value(key: str, line: str | None, reason: str, source: str = "") -> UserError:
    """``training.learning_rate=abc: a number is needed``"""
    shown = line or key
    expected = _expected(key)
    if expected is None:
        return UserError(f"{source}{shown}: {_sentence(reason)}")
    value = _search(r"Value '([^']*)'", reason)
    got = f" (not '{value}')" if value is not None and not line else ""
    return UserError(f"{source}{shown}: {expected}{got}")


def unresolved(error: OmegaConfBaseException) -> UserError:
    """An interpolation `${…}` that leads nowhere."""
    return UserError(f"{error.full_key or 'the configuration'}: {_sentence(str(error))}")


def _types() -> dict[str, Any]:
    """Dotted key -> annotated type, for every key of the schema."""
    hints = typing.get_type_hints(RunConfig)
    found = dict(hints)
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            found.update({f"{name}.{key}": inner for key, inner in typing.get_type_hints(hint).items()})
    return found


def _expected(key: str) -> str | None:
    """What a value of `key` must be, in words; None for a key that the schema leaves open."""
    hint = _types().get(key)
    if hint is None or hint is Any:
        return None
    nullable = type(None) in typing.get_args(hint)
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if _is_union(hint) else [hint]
    if dataclasses.is_dataclass(kinds[0]) or typing.get_origin(kinds[0]) is dict:
        inside = [k for k in _types() if k.startswith(f"{key}.")] or [f"{key}.name"]
        return f"this is a section; set a key of it, such as {inside[0]}=…"
    if typing.get_origin(kinds[0]) is list:
        return f"a list is needed, such as {key}=[a] or {key}=[a,b]"
    words = EXPECTED.get(kinds[0])
    return f"{words}{' or null' if nullable else ''} is needed" if words else None


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _given(key: str, lines: Sequence[str]) -> str | None:
    """The override that set `key`, or the nearest section above it."""
    return next((line for line in reversed(lines) if line.split("=")[0].lstrip("+~") == key), None)


def _source(text: str, files: Catalogue) -> str:
    """`recipes/dpo.yaml: ` where the message says which file it is about; the command line needs no name."""
    match = re.match(r"In '([\w-]+)/([^']+)'", text)
    if not match:
        return ""
    group, option = match.groups()
    known = group == "recipe" or group in files.groups
    path = {**files.own, **files.options(group)}.get(option) if known else None
    return f"{path}: " if path else f"{group} file: "


def _recipe_in(lines: Sequence[str], files: Catalogue) -> str:
    """`recipes/dpo.yaml: ` for what the recipe asked for: options on the command line were checked before."""
    option = next((line.partition("=")[2] for line in reversed(lines) if line.startswith("recipe=")), "")
    path = {**files.own, **files.recipes}.get(option)
    return f"{path}: " if path else ""


def _sentence(text: str) -> str:
    """Hydra's message without its links, its search path and its line breaks."""
    kept = []
    for line in text.splitlines():
        if line.startswith(("Config search path", "Search path", "See https", "    full_key", "    object_type")):
            break
        if line.strip():
            kept.append(line.strip())
    return "; ".join(kept)


def _search(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match.group(1) if match else None


def _plain(tree: DictConfig) -> dict[str, Any]:
    content = OmegaConf.to_container(tree, resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
