"""Who is compared: models with weights, and files of stored answers, by the words of a command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alignment.data.files import kind_of
from alignment.errors import UserError, unknown


@dataclass(frozen=True)
class Contestant:
    """A model, or a file of answers, under the name that the tables give it."""

    name: str
    spec: str  # a built-in's name, folder, run folder, hub id, .gguf file; or a file of answers
    stored: bool = False  # a file of answers
    source: str | None = None  # of a file that holds the answers of several models: whose


def contestants(words: Iterable[str]) -> list[Contestant]:
    """The models that the words `NAME=SPEC` or `SPEC` name, in order.

    Raises:
        UserError: no word, two models of one name, or a file of answers that is not there.
    """
    found = [_contestant(word) for word in words]
    if not found:
        raise UserError("no model: name one or more, such as tiny, outputs/dpo/RUN or answers.jsonl")
    seen: dict[str, Contestant] = {}
    for each in found:
        if each.name in seen:
            raise UserError(
                f"{seen[each.name].spec} and {each.spec} would both be called {each.name}"
                f"\nMend: name them yourself: {each.name}-a={seen[each.name].spec} {each.name}-b={each.spec}"
            )
        seen[each.name] = each
    return found


def chosen(name: str, among: Iterable[Contestant], what: str) -> Contestant:
    """The one that is called `name`, or whose spec that is; `what` is the option that named it."""
    options = list(among)
    for each in options:
        if name in (each.name, each.spec):
            return each
    raise unknown(f"{what} (one of the models by its name)", name, [each.name for each in options])


def named(word: str) -> tuple[str | None, str]:
    """(name, what it names) of `NAME=WHAT`; None for a word without a name, such as a path that holds an =."""
    name, equals, what = word.partition("=")
    if not equals or "/" in name or Path(word).expanduser().exists():
        return None, word
    if not name.strip() or not what:
        raise UserError(f"'{word}': write NAME=MODEL, with something on both sides")
    return name, what


def _contestant(word: str) -> Contestant:
    name, spec = named(word)
    file, source = _file_and_source(spec)
    if kind_of(Path(file)) is None:
        return Contestant(name or _own_name(spec), spec)
    if not Path(file).expanduser().is_file():
        raise UserError(f"no such file of answers: {file}")
    return Contestant(name or source or Path(file.removesuffix(".gz")).stem, file, stored=True, source=source)


def _file_and_source(spec: str) -> tuple[str, str | None]:
    """`answers.jsonl#tiny`: the answers of tiny in answers.jsonl."""
    file, mark, source = spec.rpartition("#")
    if not mark or Path(spec).expanduser().exists() or kind_of(Path(file)) is None:
        return spec, None
    return file, source


def _own_name(spec: str) -> str:
    """A short name: the last part of a path or hub id; that of a run is a time, so what stands before it is kept."""
    parts = Path(spec).parts
    last = parts[-1].removesuffix(".gguf") if parts else spec
    return "/".join(parts[-2:]) if len(parts) > 1 and last[:1].isdigit() else last
