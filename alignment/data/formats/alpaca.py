"""Alpaca's instruction and input with two answers and a label, in the layouts that are found in public."""

from __future__ import annotations

from typing import Any

from alignment.data.example import Example, Message
from alignment.data.formats.common import Row, RowError, answer, has, instruction_prompt, pair, prompt_of, verdict
from alignment.data.formats.standard import SYSTEMS

NAME = "alpaca"
DESCRIPTION = "Alpaca: instruction (and input) with two outputs and a label, or with chosen and rejected"
_OUTPUTS = (("output_1", "output_2"), ("response1", "response2"), ("response_1", "response_2"))
_LABELS = ("label", "preference", "feedback")
_FIRST = (1, "1", "1.0", "(a)", "a", "first", "output_1", "response1")
_SECOND = (2, "2", "2.0", "(b)", "b", "second", "output_2", "response2")
_TIE = ("equal", "tie")


def parse(row: Row) -> Example | None:
    if has(row, "instruction"):
        for names in (("chosen", "rejected"), *_OUTPUTS):
            if has(row, *names):
                return _two(row, _prompt(row), names)
        if isinstance(row.get("output"), list):
            return _list(row)
    elif isinstance(row.get("input"), str) and has(row, "output_1", "output_2"):  # LLMBar: input is the whole prompt
        return _two(row, prompt_of(row["input"], "input"), ("output_1", "output_2"))
    return None


def _prompt(row: Row) -> list[Message]:
    return instruction_prompt(row, next((row[name] for name in SYSTEMS if has(row, name)), None))


def _two(row: Row, prompt: list[Message], names: tuple[str, str]) -> Example:
    p_first, label = (1.0, None) if names == ("chosen", "rejected") else _label(row)
    used = ("instruction", "input", *names, *SYSTEMS, *([label] if label else []))
    responses = answer(row[names[0]], names[0]), answer(row[names[1]], names[1])
    return pair(row, used, prompt, responses, p_first)


def _list(row: Row) -> Example:
    """`output: [first, second]`: the first is the better one, unless a label says which."""
    outputs: list[Any] = row["output"]
    if len(outputs) != 2:
        raise RowError(f"output has {len(outputs)} answers, not two")
    p_first, label = _label(row) if any(has(row, key) for key in _LABELS) else (1.0, None)
    used = ("instruction", "input", "output", *SYSTEMS, *([label] if label else []))
    return pair(row, used, _prompt(row), (answer(outputs[0], "output[0]"), answer(outputs[1], "output[1]")), p_first)


def _label(row: Row) -> tuple[float, str]:
    """(P(first ≻ second), the label's field). 1 is the first, 2 the second, a number between them a share."""
    key = next((key for key in _LABELS if has(row, key)), None)
    if key is None:
        raise RowError(f"two answers without a label ({', '.join(_LABELS)})")
    value = row[key]
    if isinstance(value, float) and 1 <= value <= 2:  # AlpacaEval's graded preference
        return 2.0 - value, key
    if value in (0, "0") and not isinstance(value, bool):
        raise RowError(f"{key} is 0, which may mean the first answer or a tie: write 1, 2 or tie")
    return verdict(value, _FIRST, _SECOND, _TIE, key), key
