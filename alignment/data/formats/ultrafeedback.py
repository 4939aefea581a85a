"""UltraFeedback: an instruction with several rated completions, or binarised to one pair with two scores."""

from __future__ import annotations

from typing import Any

from alignment.data.example import Example, Judgment, Response
from alignment.data.formats import conversational, hh, standard
from alignment.data.formats.common import Row, RowError, answer, build, number, optional_text, prompt_of

NAME = "ultrafeedback"
DESCRIPTION = "UltraFeedback: instruction with rated completions, or chosen/rejected with score_chosen/score_rejected"


def parse(row: Row) -> Example | None:
    if isinstance(row.get("completions"), list) and ("instruction" in row or "prompt" in row):
        return _rated(row)
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return _binarised(row)
    return None


def _rated(row: Row) -> Example | None:
    if not row["completions"] or not all(isinstance(item, dict) and "response" in item for item in row["completions"]):
        return None
    key = "instruction" if row.get("instruction") is not None else "prompt"
    prompt = prompt_of(row.get(key), key)
    responses = [_response(item, f"completions[{index}]") for index, item in enumerate(row["completions"])]
    return build(row, (key, "completions"), prompt, responses)


def _response(item: dict[str, Any], name: str) -> Response:
    critique = optional_text(item.get("critique"), f"{name}.critique")
    return answer(
        item["response"],
        f"{name}.response",
        score=_score(item, name),
        judgments=[Judgment(critique)] if critique else [],
        source=item.get("model") if isinstance(item.get("model"), str) else None,
    )


def _score(item: dict[str, Any], name: str) -> float | None:
    """The mean of the aspect ratings: the published `overall_score` holds 10 where 1 was meant. Else that score."""
    annotations = item.get("annotations")
    if isinstance(annotations, dict):
        ratings = [aspect.get("Rating") for aspect in annotations.values() if isinstance(aspect, dict)]
        found = [number(None if rating == "N/A" else rating, f"{name}.Rating") for rating in ratings]
        known = [rating for rating in found if rating is not None]
        if known:
            return sum(known) / len(known)
    return number(item.get("overall_score"), f"{name}.overall_score")


def _binarised(row: Row) -> Example | None:
    found = row.get("metadata")
    holder: Row = found if isinstance(found, dict) and "score_chosen" in found else row
    if holder.get("score_chosen") is None or holder.get("score_rejected") is None:
        return None
    chosen = number(holder["score_chosen"], "score_chosen")
    rejected = number(holder["score_rejected"], "score_rejected")
    example = hh.parse(row) or standard.parse(row) or conversational.parse(row)
    if example is None or chosen is None or rejected is None:
        return example
    if chosen < rejected:
        raise RowError(f"score_chosen {chosen} is below score_rejected {rejected}, so the label contradicts the scores")
    for response, score in zip(example.responses, (chosen, rejected), strict=True):
        response.score = score
    preference = example.preferences[0]
    preference.margin = chosen - rejected
    if chosen == rejected:  # which of the two is called chosen is then an accident of the sorting
        preference.p_first = 0.5
    return example
