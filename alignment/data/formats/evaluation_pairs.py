"""Evaluation sets that come as pairs: model-written evals (persona, AI risk), Themis, reward-model benchmarks."""

from __future__ import annotations

from alignment.data.example import Example, Response
from alignment.data.formats.common import Row, answer, completion_of, has, is_messages, number, pair, prompt_of
from alignment.data.formats.implicit import split_transcripts

NAME = "evaluation_pairs"
DESCRIPTION = "pairs of evaluation sets: answer_matching_behavior, pos_answer/neg_answer, text_chosen/text_rejected"


def parse(row: Row) -> Example | None:
    if has(row, "question", "answer_matching_behavior", "answer_not_matching_behavior"):
        names = "answer_matching_behavior", "answer_not_matching_behavior"
        responses = answer(row[names[0]], names[0]), answer(row[names[1]], names[1])  # with their leading space
        return pair(row, ("question", *names), prompt_of(row["question"], "question"), responses)
    if has(row, "question") and isinstance(row.get("pos_answer"), dict) and isinstance(row.get("neg_answer"), dict):
        return _themis(row)
    if is_messages(row.get("text_chosen")) and is_messages(row.get("text_rejected")):
        chosen, rejected = (completion_of(row[key], key) for key in ("text_chosen", "text_rejected"))
        prompt, first, second = split_transcripts(chosen, rejected)
        used = ("text_chosen", "text_rejected")
        return pair(row, used, prompt_of(prompt), (Response(first), Response(second)))
    return None


def _themis(row: Row) -> Example:
    first, second = (
        answer(row[key].get("answer"), f"{key}.answer", score=number(row[key].get("score"), f"{key}.score"))
        for key in ("pos_answer", "neg_answer")
    )
    return pair(row, ("question", "pos_answer", "neg_answer"), prompt_of(row["question"], "question"), (first, second))
