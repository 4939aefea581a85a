"""Prompts with a written judgment in them: templates as files, in judgment_templates/ or of the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from alignment.data.example import Message
from alignment.errors import UserError, nearest, unknown

FOLDER = Path(__file__).parent / "judgment_templates"
SLOTS = {"plain": ("instruction",), "judged": ("instruction", "judgment"), "positive": ()}
_SLOT = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class JudgmentTemplate:
    """How an instruction is put to the model, alone and with a judgment that the answer is to fit."""

    plain: str  # with {instruction}: what the model is asked at inference, too
    judged: str  # with {instruction} and {judgment}
    positive: str  # the text of a judgment that finds nothing wrong: the paper's fake positive judgment j+

    def asked(self, prompt: list[Message]) -> list[Message]:
        """The prompt with its last user turn in the plain template."""
        return _in_last_turn(prompt, self.plain)

    def with_judgment(self, prompt: list[Message], judgment: str) -> list[Message]:
        """The prompt with its last user turn, and `judgment`, in the template for both."""
        return _in_last_turn(prompt, self.judged, judgment)


def _in_last_turn(prompt: list[Message], text: str, judgment: str = "") -> list[Message]:
    users = [place for place, message in enumerate(prompt) if message["role"] == "user"]
    place = users[-1] if users else len(prompt) - 1
    filling = {"instruction": prompt[place]["content"], "judgment": judgment}
    content = _SLOT.sub(lambda slot: filling[slot[1]], text)  # in one pass: a slot within a text stays text
    return [*prompt[:place], {**prompt[place], "content": content}, *prompt[place + 1 :]]


def load_judgment_template(name: str) -> JudgmentTemplate:
    """The template `name` of judgment_templates/, or the YAML file at that path.

    Raises:
        UserError: no such template, or one that lacks a key or a slot, or has one that is not known.
    """
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
        if not path.is_file():
            raise unknown("judged.template", name, (file.stem for file in FOLDER.glob("*.yaml")))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"judged.template: no such file: {name}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"judged.template={name}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    texts = content if isinstance(content, dict) else {}
    for key in texts:
        if key not in SLOTS:
            raise UserError(f"judged.template={name}: unknown key '{key}': {nearest(str(key), SLOTS)}")
    for key, slots in SLOTS.items():
        text = texts.get(key)
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"judged.template={name}: it needs the key {key}, with a text")
        found = _SLOT.findall(text)
        for slot in slots:
            if slot not in found:
                raise UserError(f"judged.template={name}: {key} must have the slot {{{slot}}}")
        for slot in found:
            if slot not in slots:
                has = f": it may have {', '.join(f'{{{slot}}}' for slot in slots)}" if slots else ": it has none"
                raise UserError(f"judged.template={name}: unknown slot {{{slot}}} in {key}{has}")
    return JudgmentTemplate(**texts)
