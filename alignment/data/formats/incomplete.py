"""Public layouts whose rows do not stand alone: refused with what is missing, instead of "unknown format"."""

from __future__ import annotations

from alignment.data.formats.common import Row, RowError

NAME = "incomplete"
DESCRIPTION = "rows that need another file: refused, with what is missing"

# (fields that tell the layout, fields that it must not have, why a row of it cannot be used)
_LAYOUTS: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (
        frozenset({"answer1_id", "answer2_id", "question_id"}),
        frozenset(),
        "a review without the question and the two answers: join it with them on question_id and the answer ids",
    ),
    (
        frozenset({"question_id", "text", "score", "_source_file"}),
        frozenset({"answer_id"}),
        "a vote without the two answers: join it with them on question_id and the models in _source_file",
    ),
    (
        frozenset({"answer_id", "model_id", "question_id", "text"}),
        frozenset(),
        "an answer without feedback: join it with the reviews on answer_id",
    ),
    (
        frozenset({"answer_id", "model_id", "question_id", "choices"}),
        frozenset(),
        "a reference answer without its question: join it with the questions on question_id",
    ),
    (
        frozenset({"session_id", "model_output", "score"}),
        frozenset({"prompt"}),
        "a scored answer without its prompt: the source names only the session_id",
    ),
    (
        frozenset({"id", "summaries"}),
        frozenset({"info", "article"}),
        "rated summaries without their article: there is no prompt to train on",
    ),
    (
        frozenset({"rev_depth_0", "rejected_edit_actions"}),
        frozenset(),
        "an editing session: there is no prompt and no two answers, only edits that were accepted or rejected",
    ),
    (
        frozenset({"idx", "pandalm_result"}),
        frozenset({"instruction"}),
        "a judge's verdict without the answers: join it with the items on idx",
    ),
    (
        frozenset({"idx", "gpt_result"}),
        frozenset({"instruction"}),
        "a judge's verdict without the answers: join it with the items on idx",
    ),
)


def parse(row: Row) -> None:
    keys = frozenset(key for key, value in row.items() if value is not None)
    for needed, absent, reason in _LAYOUTS:
        if needed <= keys and not absent & keys:
            raise RowError(reason, "no prompt")
