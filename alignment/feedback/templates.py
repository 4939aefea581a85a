"""What an LLM judge is asked: YAML templates, filled so that no text in them can pass for another part of the request.

Every text is put between tags, and the verdict is asked for on a line, that carry a mark: hex digits made from the
template and the texts, so the same content always gives the same request, and chosen so that no text contains them.
Whatever an answer holds (closing tags, verdict lines, slots, control tokens), it can forge neither.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.example import Message
from alignment.errors import UserError, nearest, unknown
from alignment.launch.assets import SUFFIXES, assets_root, load_yaml

SLOT = re.compile(r"\{([a-z_]+)\}")
# Filled in from the template itself, in any template; `line` begins the line that the verdict stands on.
GENERAL_SLOTS = ("mark", "line", "words")
MEANINGS = {"first": 1.0, "second": 0.0, "tie": 0.5, "yes": 1.0, "no": 0.0}
MARK_DIGITS = 8


@dataclass(frozen=True)
class Request:
    """One filled template: what is sent, and how the reply is read."""

    messages: list[Message]
    line: str  # begins the line of the reply that holds the verdict, mark included: "Verdict-1f0c94ab:"


@dataclass(frozen=True)
class Template:
    """A prompt with slots in braces, and the words that a verdict can be with the number each one means."""

    name: str
    user: str
    system: str | None
    verdicts: dict[str, float]
    line: str  # the word that begins the verdict's line

    @property
    def slots(self) -> set[str]:
        return {*SLOT.findall(self.user), *SLOT.findall(self.system or "")}

    def fill(self, texts: Mapping[str, str | Sequence[str] | Sequence[Message]]) -> Request:
        """The request with `texts` in the slots of those names.

        A text stands in tags of its slot's name, each of a list of texts in tags of its own. A conversation of more
        than one user's turn has each turn in tags of its role, and all of it in those of its slot.
        """
        texts = {name: _sound(text) for name, text in texts.items()}
        mark = _mark([self.system, self.user, self.line], texts)
        line = f"{self.line}-{mark}:"
        filling = {"mark": mark, "line": line, "words": ", ".join(self.verdicts)}
        filling |= {name: _tagged(name, text, mark) for name, text in texts.items()}

        def filled(template: str) -> str:  # in one pass: a slot within a text stays text
            return SLOT.sub(lambda slot: filling[slot[1]], template)

        messages = [{"role": "user", "content": filled(self.user)}]
        if self.system:
            messages.insert(0, {"role": "system", "content": filled(self.system)})
        return Request(messages, line)


def load_template(name: str, needed: Sequence[str], optional: Sequence[str] = (), verdicts: bool = True) -> Template:
    """The template `name` of configs/judge, or the YAML file at that path.

    Args:
        needed: slots that it must have, beside {line}.
        optional: slots that it may have.
        verdicts: whether it must say which words a verdict can be.

    Raises:
        UserError: no such template, or one that is not as it must be; the message names the place and the mend.
    """
    path = _path_of(name)
    content = load_yaml(path)
    known = ("system", "user", "verdicts", "line")
    for key in content:
        if key not in known:
            raise UserError(f"judge template {path}: unknown key '{key}': {nearest(str(key), known)}")
    user: Any = content.get("user")
    system, line = content.get("system"), content.get("line", "Verdict")
    for key, value in (("user", user), ("line", line), ("system", "-" if system is None else system)):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"judge template {path}: {key} must be a text")
    if not re.fullmatch(r"\w+", line):
        raise UserError(f"judge template {path}: line must be one word, it is '{line}'")
    system = system.strip() if system else None
    template = Template(name, user.strip(), system, _verdicts(path, content, verdicts), line)
    _check_slots(path, template, needed, optional)
    return template


def _path_of(name: str) -> Path:
    if not isinstance(name, str):
        raise UserError(f"judge template: must be a name or a path, it is {name!r}")
    path = Path(name).expanduser()
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise UserError(f"judge template: no such file: {name}")
        return path
    folder = assets_root() / "configs" / "judge"
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise unknown("judge template", name, (file.stem for file in folder.glob("*.yaml")))
    return path


def _verdicts(path: Path, content: Mapping[str, Any], needed: bool) -> dict[str, float]:
    given = content.get("verdicts")
    if given is None and not needed:
        return {}
    if not isinstance(given, dict) or len(given) < 2:
        raise UserError(f"judge template {path}: verdicts must map two or more words to what they mean")
    found: dict[str, float] = {}
    for word, meaning in given.items():
        if isinstance(word, bool) or not isinstance(word, (str, int)) or not re.fullmatch(r"\w+", str(word)):
            hint = ': write "yes" and "no" in quotes' if isinstance(word, bool) else ""
            raise UserError(f"judge template {path}: verdict '{word}' is not one word of text{hint}")
        if isinstance(meaning, str) and meaning in MEANINGS:
            meaning = MEANINGS[meaning]
        if isinstance(meaning, bool) or not isinstance(meaning, (int, float)):
            raise UserError(
                f"judge template {path}: verdict '{word}' must mean a number, or one of {', '.join(MEANINGS)}"
            )
        found[str(word)] = float(meaning)
    if len({word.casefold() for word in found}) < len(found):
        raise UserError(f"judge template {path}: two verdicts differ in nothing but case")
    return found


def _check_slots(path: Path, template: Template, needed: Sequence[str], optional: Sequence[str]) -> None:
    for slot in (*needed, "line"):
        if slot not in SLOT.findall(template.user):
            raise UserError(f"judge template {path}: user must have the slot {{{slot}}}")
    known = {*needed, *optional, *GENERAL_SLOTS}
    for slot in sorted(template.slots - known):
        raise UserError(f"judge template {path}: unknown slot {{{slot}}}: {nearest(slot, known)}")


def _sound(text: Any) -> Any:
    """`text` without lone surrogates, which neither a request nor a tokenizer can carry."""
    if isinstance(text, str):
        return text.encode("utf-8", "replace").decode("utf-8")
    if isinstance(text, Mapping):
        return {key: _sound(value) for key, value in text.items()}
    return [_sound(item) for item in text]


def _mark(template: Sequence[str | None], texts: Mapping[str, Any]) -> str:
    """Hex digits from the content, the first of a fixed sequence that no text contains."""
    content = json.dumps([template, texts], ensure_ascii=False, sort_keys=True)
    number = 0
    while True:
        digest = hashlib.blake2b(f"{number} {content}".encode(), digest_size=MARK_DIGITS // 2).hexdigest()
        if digest not in content.casefold():
            return digest
        number += 1


def _tagged(name: str, text: Any, mark: str) -> str:
    if isinstance(text, str):
        return f"<{name}-{mark}>\n{text}\n</{name}-{mark}>"
    if not text or isinstance(text[0], str):
        return "\n".join(_tagged(name, each, mark) for each in text)
    turns = [(message["role"], message["content"]) for message in text]
    if [role for role, _ in turns] == ["user"]:
        return _tagged(name, turns[0][1], mark)
    return _tagged(name, "\n".join(_tagged(role, content, mark) for role, content in turns), mark)
