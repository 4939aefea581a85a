"""CUT's own files: an instruction, one response, what a judge wrote about it, and sometimes a score."""

from __future__ import annotations

from alignment.data.example import Example, Judgment
from alignment.data.formats.common import Row, RowError, answer, build, has, instruction_prompt, number, optional_text
from alignment.data.judgments import only_praise

NAME = "cut"
DESCRIPTION = "CUT: instruction, input, output, a judgment (null: nothing to criticise), and a score where there is one"
SATISFIED_FROM = 7  # the authors' threshold on the score


def parse(row: Row) -> Example | None:
    if not ("judgment" in row and "instruction" in row) or has(row, "satisfactory"):
        return None
    judgment = optional_text(row["judgment"], "judgment")
    if judgment.strip() == "$ERROR$":
        raise RowError("judgment is '$ERROR$': the judge gave none")
    if not has(row, "output"):
        if "output" not in row and not judgment:  # another layout, beside which this column is empty
            return None
        raise RowError("a judgment without the answer that it judges: output is missing", "empty")
    score = number(row.get("score"), "score")
    praised = only_praise(judgment) if score is None else score >= SATISFIED_FROM
    note = Judgment(judgment or None, satisfactory=not judgment or praised)
    response = answer(row["output"], "output", score=score, judgments=[note])
    return build(row, ("instruction", "input", "output", "judgment", "score"), instruction_prompt(row), [response])
