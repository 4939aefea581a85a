"""Prompts from templates: YAML files of texts with slots in braces, which are put around a prompt's last user turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.data.example import Message
from alignment.errors import UserError, nearest, unknown
from alignment.yaml_files import read_yaml

SLOT = re.compile(r"\{([a-z_]+)\}")


def in_last_turn(prompt: list[Message], text: str, **filling: str) -> list[Message]:
    """The prompt with its last user turn (else its last) as `text`, that turn in {instruction} and `filling` in others.

    All slots are filled in one pass: a slot within an instruction or a filling stays text.
    """
    users = [place for place, message in enumerate(prompt) if message["role"] == "user"]
    place = users[-1] if users else len(prompt) - 1
    filling["instruction"] = prompt[place]["content"]
    content = SLOT.sub(lambda slot: filling[slot[1]], text)
    return [*prompt[:place], {**prompt[place], "content": content}, *prompt[place + 1 :]]


def quoted(text: str, tokenizer: Any, limit: int, cut: str) -> tuple[str, bool]:
    """(`text` as it may stand in a prompt, whether it was too long).

    It has no control tokens ("<|im_end|>"), as a sampled answer has none. Of more than `limit` tokens the first ones
    are left, and `cut` behind them.
    """
    control = set(tokenizer.all_special_ids)
    ids = _ids(tokenizer, text)
    while control.intersection(ids):  # what is around one may make another
        text = tokenizer.decode([token for token in ids if token not in control])
        ids = _ids(tokenizer, text)
    if len(ids) <= limit:
        return text, False
    kept = tokenizer.decode(ids[:limit]).rstrip("\ufffd").rstrip()  # a token may end within a character
    return f"{kept} {cut}", True


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def load_texts(name: str, folder: Path, slots: Mapping[str, Sequence[str]], setting: str) -> dict[str, str]:
    """The texts of the template `name` in `folder`, or of the YAML file at that path.

    Args:
        slots: the keys that it must have, and no others, with the slots that each text must have, and no others.
        setting: what gave the name, for messages: "judged.template".

    Raises:
        UserError: no such template, or one that lacks a key or a slot, or has one that is not known.
    """
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = folder / f"{name}.yaml"
        if not path.is_file():
            raise unknown(setting, name, (file.stem for file in folder.glob("*.yaml")))
    if not path.exists():
        raise UserError(f"{setting}: no such file: {name}")
    content = read_yaml(path)
    texts = content if isinstance(content, dict) else {}
    for key in texts:
        if key not in slots:
            raise UserError(f"{setting}={name}: unknown key '{key}': {nearest(str(key), slots)}")
    for key, wanted in slots.items():
        text = texts.get(key)
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{setting}={name}: it needs the key {key}, with a text")
        _check_slots(f"{setting}={name}", key, SLOT.findall(text), wanted)
    return texts


def _check_slots(where: str, key: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    for slot in wanted:
        if slot not in found:
            raise UserError(f"{where}: {key} must have the slot {{{slot}}}")
    for slot in found:
        if slot not in wanted:
            has = f": it may have {', '.join(f'{{{slot}}}' for slot in wanted)}" if wanted else ": it has none"
            raise UserError(f"{where}: unknown slot {{{slot}}} in {key}{has}")
