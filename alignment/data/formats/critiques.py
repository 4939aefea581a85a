"""One answer a row and what was written about it, with a verdict, a score, or neither."""

from __future__ import annotations

from typing import Any

from alignment.data.example import Example, Judgment, Message, Response
from alignment.data.formats.common import (
    Row,
    RowError,
    build,
    completion_of,
    flag,
    has,
    instruction_prompt,
    is_messages,
    messages,
    number,
    optional_text,
    prompt_of,
)
from alignment.data.formats.standard import SYSTEMS

NAME = "critiques"
DESCRIPTION = (
    "a written judgment: prompt, question or instruction (and input), with completion, response, answer or output, or "
    "messages; judgment, critique or feedback (a text, or several); satisfactory, label, score or rating where known"
)
_PROMPTS = ("prompt", "question")
_ANSWERS = ("completion", "response", "answer", "output")
_JUDGMENTS = ("judgment", "critique", "feedback")
_ORIGINAL = {f"orig_{name}": name for name in ("instruction", "response", "feedback", "score")}


def parse(row: Row) -> Example | None:
    if has(
        row, "orig_response"
    ):  # Feedback-Collection: its plain instruction and output are a judge's, not the model's
        rest = {key: value for key, value in row.items() if key not in ("instruction", "output", "input", *_ORIGINAL)}
        row = rest | {plain: row.get(name) for name, plain in _ORIGINAL.items()}
    judgments = next((name for name in _JUDGMENTS if isinstance(row.get(name), str | list)), None)
    if (judgments is None and not has(row, "satisfactory")) or has(row, "chosen") or has(row, "rejected"):
        return None
    if not (has(row, "instruction") or has(row, "messages") or any(name in row for name in _PROMPTS)):
        return None
    if not is_messages(row.get("messages")) and not any(has(row, name) for name in _ANSWERS):
        if judgments == "feedback":  # a word that means many things
            return None
        raise RowError(f"a judgment without the answer that it judges: there is no {', '.join(_ANSWERS)}", "empty")
    prompt, completion, used = _said(row)
    score = next((name for name in ("score", "rating") if has(row, name)), None)
    desirable = flag(row["label"], "label") if has(row, "label") else None
    satisfactory = flag(row["satisfactory"], "satisfactory") if has(row, "satisfactory") else desirable
    written = row[judgments] if judgments else None
    texts = [optional_text(text, judgments or "") for text in (written if isinstance(written, list) else [written])]
    notes = [Judgment(text, satisfactory) for text in texts if text]
    response = Response(
        completion,
        score=number(row[score], score) if score else None,
        desirable=desirable,
        judgments=notes or ([] if satisfactory is None else [Judgment(None, satisfactory)]),
    )
    used = (*used, judgments or "", score or "", "satisfactory", "label", *SYSTEMS)
    return build(row, used, prompt, [response])


def _said(row: Row) -> tuple[list[Message], list[Message], tuple[Any, ...]]:
    """(prompt, completion, the fields that they are in)."""
    system = next((row[name] for name in SYSTEMS if has(row, name)), None)
    if is_messages(row.get("messages")):
        turns = messages(row["messages"], "messages")
        completion = completion_of(turns, "messages")[-1:]
        return prompt_of(turns[:-1], "messages", system), completion, ("messages",)
    key = next(name for name in _ANSWERS if has(row, name))
    completion = completion_of(row[key], key)
    if has(row, "instruction"):
        return instruction_prompt(row, system), completion, ("instruction", "input", key)
    asked = next(name for name in _PROMPTS if name in row)
    return prompt_of(row[asked], asked, system), completion, (asked, key)
