"""FineGrainedRLHF question answering: four answers compared by people, error spans and a correction of the first."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from alignment.data.example import Example, Judgment, Preference, Response
from alignment.data.formats.common import Row, RowError, answer, build, has, prompt_of, text

NAME = "fine_grained"
DESCRIPTION = "FineGrainedRLHF: question, passages, prediction 1 to 4, preference (six outcomes), feedback"
_PREDICTIONS = ("prediction 1", "prediction 2", "prediction 3", "prediction 4")
_OUTCOMES = {0: 0.5, 1: 1.0, 2: 0.0}


def parse(row: Row) -> Example | None:
    if not has(row, "question", "preference", *_PREDICTIONS):
        return None
    responses = [answer(row[name], name) for name in _PREDICTIONS]
    outcomes = row["preference"]
    if not isinstance(outcomes, list) or len(outcomes) != 6 or not all(type(value) is int for value in outcomes):
        raise RowError("preference is not a list of six outcomes")
    if not set(outcomes) <= set(_OUTCOMES):
        raise RowError("preference holds an outcome other than 0 (equal), 1 and 2")
    preferences = [
        Preference(first, second, _OUTCOMES[outcome])
        for (first, second), outcome in zip(combinations(range(4), 2), outcomes, strict=True)
    ]
    feedback = row.get("feedback") if isinstance(row.get("feedback"), dict) else {}
    assert isinstance(feedback, dict)
    responses[0].judgments = [_judgment(feedback, responses[0].text)] if feedback else []
    corrected = feedback.get("corrected-prediction")
    if isinstance(corrected, str) and corrected.strip() and corrected != responses[0].text:
        # The annotator rewrote answer 1 to mend its errors, so the rewriting is better than it, by construction.
        responses.append(Response.of(corrected, source="corrected"))
        preferences.append(Preference(4, 0))
    used = ("question", "passages", "preference", *_PREDICTIONS)
    return build(row, used, prompt_of(_prompt(row)), responses, preferences)


def _prompt(row: Row) -> str:
    """The passages, titles on a line of their own, and the question last."""
    passages = row.get("passages") or []
    if not isinstance(passages, list) or not all(isinstance(passage, list) for passage in passages):
        raise RowError("passages is not a list of lists of sentences")
    parts = []
    for passage in passages:
        sentences = [str(sentence) for sentence in passage]
        parts.append("\n".join([*sentences[:1], " ".join(sentences[1:])]).strip())
    return "\n\n".join([*parts, text(row["question"], "question")])


def _judgment(feedback: dict[str, Any], answered: str) -> Judgment:
    """The marked spans, a line each; satisfactory when nothing is marked and nothing is missing."""
    errors = feedback.get("errors") or []
    missing = feedback.get("missing-info") or []
    if not isinstance(errors, list) or not isinstance(missing, list):
        raise RowError("feedback.errors or feedback.missing-info is not a list")
    lines = []
    for error in errors:
        start, end = (error.get("start"), error.get("end")) if isinstance(error, dict) else (None, None)
        if type(start) is not int or type(end) is not int:
            raise RowError("an error of the feedback has no start and end")
        lines.append(f"{error.get('error type', 'Error')}: {answered[start:end]!r}")
    for gap in missing:
        lines.append(str(gap.get("error type", "Missing")) if isinstance(gap, dict) else "Missing")
    return Judgment(text="\n".join(lines) or None, satisfactory=not lines)
