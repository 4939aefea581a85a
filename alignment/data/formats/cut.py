"""CUT: an instruction, one response, and what a judge wrote about it."""

from __future__ import annotations

from alignment.data.example import Example, Judgment
from alignment.data.formats.common import Row, RowError, answer, build, instruction_prompt, optional_text

NAME = "cut"
DESCRIPTION = "CUT: instruction, input, output, and a judgment (null: nothing to criticise)"


def parse(row: Row) -> Example | None:
    if not ("judgment" in row and "instruction" in row and "output" in row):
        return None
    judgment = optional_text(row["judgment"], "judgment")
    if judgment == "$ERROR$":
        raise RowError("judgment is '$ERROR$': the judge gave none")
    praise = not judgment or judgment.strip().rstrip(".").lower() == "the response is perfect"
    response = answer(row["output"], "output", judgments=[Judgment(judgment or None, satisfactory=praise)])
    return build(row, ("instruction", "input", "output", "judgment"), instruction_prompt(row), [response])
