"""Prometheus grading prompts: instruction, response and rubric in one text under ### headings.

With `gpt4_score` and `gpt4_feedback` an absolute rating; as `chosen_instruction` and `rejected_instruction` a pair.
"""

from __future__ import annotations

import re
from typing import Any

from alignment.data.example import Example, Judgment, Message, Response
from alignment.data.formats.common import Row, RowError, answer, build, number, optional_text, pair, prompt_of, text
from alignment.data.formats.transcripts import split_turns

NAME = "grading"
DESCRIPTION = (
    "Prometheus grading prompts (### headings): with gpt4_score and gpt4_feedback, or as a chosen/rejected pair"
)
_PARTS = re.compile(
    r"###The instruction to evaluate:\n(?P<instruction>.*?)\n*###Response to evaluate:\n(?P<response>.*?)\n*"
    r"(?:###Reference Answer \(Score 5\):\n(?P<reference>.*?)\n*)?###Score Rubrics:\n(?P<rubric>.*?)\n*###Feedback:",
    re.DOTALL,
)
_PREAMBLE = "Here is a previous dialogue between an assistant and an user."


def parse(row: Row) -> Example | None:
    if isinstance(row.get("chosen_instruction"), str) and isinstance(row.get("rejected_instruction"), str):
        chosen = _parts(row["chosen_instruction"], "chosen_instruction")
        rejected = _parts(row["rejected_instruction"], "rejected_instruction")
        if chosen["instruction"] != rejected["instruction"]:
            raise RowError("chosen_instruction and rejected_instruction hold different prompts")
        used = ("chosen_instruction", "rejected_instruction")
        responses = answer(chosen["response"], "the chosen response"), answer(rejected["response"], "the rejected one")
        example = pair(row, used, _prompt(chosen["instruction"]), responses)
    elif isinstance(row.get("instruction"), str) and "gpt4_score" in row:
        chosen = _parts(row["instruction"], "instruction")
        example = build(
            row, ("instruction", "gpt4_score", "gpt4_feedback"), _prompt(chosen["instruction"]), [_rated(row, chosen)]
        )
    else:
        return None
    kept = {name: chosen[name] for name in ("reference", "rubric") if chosen[name]}
    example.meta["fields"] = {**example.meta.get("fields", {}), **kept}
    return example


def _parts(value: str, name: str) -> dict[str, Any]:
    found = _PARTS.search(text(value, name))
    if found is None:
        raise RowError(f"{name} does not hold the headings of a grading prompt")
    return found.groupdict()


def _prompt(instruction: str) -> list[Message]:
    if instruction.startswith(_PREAMBLE) and "\nUser:" in instruction:
        turns = split_turns(instruction[instruction.index("\nUser:") :], user="User")
    elif "\n\nAssistant:" in instruction:  # HHH cuts the first mark off
        turns = split_turns("Human: " + instruction)
    else:
        return prompt_of(instruction, "instruction")
    if turns[-1] == {"role": "assistant", "content": ""}:  # the open mark at which the answer begins
        turns.pop()
    return prompt_of(turns, "instruction")


def _rated(row: Row, parts: dict[str, Any]) -> Response:
    """The response with the mean of its scores, and one judgment a sample of the judge."""
    scores = row["gpt4_score"] if isinstance(row["gpt4_score"], list) else [row["gpt4_score"]]
    written = row.get("gpt4_feedback")
    feedback = written if isinstance(written, list) else [written]
    known = [score for score in (number(value, "gpt4_score") for value in scores) if score is not None]
    judgments = [Judgment(optional_text(item, "gpt4_feedback"), annotator="gpt-4") for item in feedback]
    source = row.get("response_source")
    return answer(
        parts["response"],
        "the response",
        score=sum(known) / len(known) if known else None,
        judgments=[judgment for judgment in judgments if judgment.text],
        source=source if isinstance(source, str) else None,
    )
