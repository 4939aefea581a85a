"""YAML that others may have written: no Python objects, no bombs, and what is wrong with it in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from alignment.errors import UserError

MOST_VALUES = 100_000  # that a file with aliases may stand for: nine lines of them can stand for billions
_ALIAS = re.compile(r"[&*][^\s,\[\]{}]")


def read_yaml(path: Path, load: Callable[[str], Any] = yaml.safe_load) -> Any:
    """What the YAML file at `path` holds, as `parse_yaml` has it.

    Raises:
        UserError: it cannot be read, is not UTF-8, or is what `parse_yaml` refuses.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read: not UTF-8 ({error.reason} at byte {error.start + 1})") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    return parse_yaml(text, path, load)


def parse_yaml(text: str, path: Path, load: Callable[[str], Any] = yaml.safe_load) -> Any:
    """What the YAML `text` of the file `path` holds, read by `load`, which must be a safe loader.

    Raises:
        UserError: it is not YAML, is nested too deeply, or its aliases stand for more values than anything here needs.
    """
    try:
        if _ALIAS.search(text):
            _refuse_bomb(path, text)
        return load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or " ".join(str(error).split())[:200]
        raise UserError(f"{where}: not valid YAML: {reason}") from error
    except RecursionError as error:
        raise UserError(f"{path}: cannot be read: nested too deeply") from error
    except (OSError, ValueError, OverflowError) as error:  # also a date or a number that YAML's rules allow
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error


def _refuse_bomb(path: Path, text: str) -> None:
    """Count what the file stands for, each alias as often as it is used, without building it."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_nodes:
            raise UserError(f"{path}: cannot be read: an alias stands inside what it names")
        if key not in sizes:
            open_nodes.add(key)
            parts: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                parts = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                parts = node.value
            sizes[key] = 1 + sum(map(size, parts))
            open_nodes.remove(key)
        return sizes[key]

    tree = yaml.compose(text, Loader=yaml.SafeLoader)
    if tree is not None and size(tree) > MOST_VALUES:
        raise UserError(f"{path}: cannot be read: its aliases stand for more than {MOST_VALUES:,} values")
