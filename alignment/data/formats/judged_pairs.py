"""Sets of two answers and a verdict, each with names of its own: PandaLM, Auto-J, Tulu's experts, LFQA's experts."""

from __future__ import annotations

import re
from typing import Any

from alignment.data.example import Example, Judgment, Preference, Response
from alignment.data.formats.common import (
    Row,
    answer,
    flag,
    has,
    instruction_prompt,
    number,
    pair,
    prompt_of,
    text,
    verdict,
)

NAME = "judged_pairs"
DESCRIPTION = "two answers and a verdict: PandaLM, Auto-J, Tulu human evaluation, LFQA experts"
_ANNOTATOR = re.compile(r"annotator\d+")


def parse(row: Row) -> Example | None:
    if has(row, "instruction", "response1", "response2") and any(_ANNOTATOR.fullmatch(str(key)) for key in row):
        return _pandalm(row)
    if has(row, "prompt", "response 1", "response 2", "label"):
        return _autoj(row)
    if has(row, "prompt", "completion_a", "completion_b", "preference"):
        return _tulu(row)
    if has(row, "question", "answer_a", "answer_b", "overall_preference"):
        return _lfqa(row)
    return None


def _pandalm(row: Row) -> Example:
    """One preference an annotator: 1 and 2 name the better response, 0 is a tie."""
    voters = sorted(str(key) for key in row if _ANNOTATOR.fullmatch(str(key)) and row[key] is not None)
    votes = [verdict(row[name], (1, "1"), (2, "2"), (0, "0"), name) for name in voters]
    used = ("instruction", "input", "response1", "response2", *voters)
    responses = answer(row["response1"], "response1"), answer(row["response2"], "response2")
    example = pair(row, used, instruction_prompt(row), responses)
    example.preferences = [Preference(0, 1, vote) for vote in votes]
    return example


def _autoj(row: Row) -> Example:
    p_first = verdict(row["label"], (0, "0"), (1, "1"), (2, "2"), "label")
    responses = answer(row["response 1"], "response 1"), answer(row["response 2"], "response 2")
    return pair(row, ("prompt", "response 1", "response 2", "label"), prompt_of(row["prompt"]), responses, p_first)


def _tulu(row: Row) -> Example:
    """`a-is-slightly-better` is the same verdict as `a-is-better`, with a margin of 1 in place of 2."""
    degrees = ("a-is-better", "a-is-slightly-better"), ("b-is-better", "b-is-slightly-better"), ("tie",)
    p_first = verdict(row["preference"], *degrees, "preference")
    margin = 0.0 if p_first == 0.5 else 1.0 if "slightly" in str(row["preference"]) else 2.0
    responses = _completion(row, "a"), _completion(row, "b")
    used = ["prompt", "preference"]
    for side in "ab":
        used += [f"completion_{side}", f"completion_{side}_is_acceptable", f"model_{side}"]
    return pair(row, used, prompt_of(row["prompt"]), responses, p_first, margin)


def _completion(row: Row, side: str) -> Response:
    name = f"completion_{side}_is_acceptable"
    return answer(
        row[f"completion_{side}"],
        f"completion_{side}",
        desirable=flag(row[name], name) if has(row, name) else None,
        source=_source(row.get(f"model_{side}")),
    )


def _lfqa(row: Row) -> Example:
    """-1 is for A, 1 for B. The literal <br /> of the source becomes the line break that it stands for.

    The expert's justification is a judgment of both answers: of the preferred one as satisfactory, of the other as not.
    """
    p_first = verdict(number(row["overall_preference"], "overall_preference"), (-1,), (1,), (0,), "overall_preference")
    responses = (
        answer(_lines(row["answer_a"], "answer_a"), "answer_a", source=_source(row.get("answer_a_type"))),
        answer(_lines(row["answer_b"], "answer_b"), "answer_b", source=_source(row.get("answer_b_type"))),
    )
    if has(row, "justification") and p_first != 0.5:
        written = _lines(row["justification"], "justification")
        for response, preferred in zip(responses, (p_first == 1.0, p_first == 0.0), strict=True):
            response.judgments = [Judgment(written, satisfactory=preferred)]
    used = ("question", "answer_a", "answer_b", "answer_a_type", "answer_b_type", "overall_preference", "justification")
    prompt = prompt_of(_lines(row["question"], "question"), "question")
    return pair(row, used, prompt, responses, p_first)


def _lines(value: Any, name: str) -> str:
    return re.sub(r" ?<br ?/?> ?", "\n", text(value, name))


def _source(value: Any) -> str | None:
    return value if isinstance(value, str) else None
