"""Single answers with a human label of their own wording: XSTest (refusals), TruthfulQA's judge data."""

from __future__ import annotations

import re

from alignment.data.example import Example, Judgment
from alignment.data.formats.common import Row, RowError, answer, build, flag, has, prompt_of

NAME = "labelled_answers"
DESCRIPTION = "single labelled answers: XSTest completions (refusal labels), TruthfulQA judge data (yes/no)"
_QUESTION = re.compile(r"Q: (?P<question>.*)\nA: (?P<answer>.*)\n(?P<aspect>True|Helpful):", re.DOTALL)
_LABELS = {"1_full_compliance": True, "2_full_refusal": False, "3_partial_refusal": None}


def parse(row: Row) -> Example | None:
    if has(row, "prompt", "completion", "final_label", "type"):
        return _xstest(row)
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str) and not has(row, "label"):
        found = _QUESTION.fullmatch(row["prompt"])
        if found is not None and row["completion"].strip() in ("yes", "no"):
            response = answer(found["answer"], "the answer", desirable=flag(row["completion"], "completion"))
            example = build(row, ("prompt", "completion"), prompt_of(found["question"], "question"), [response])
            example.meta["fields"] = {**example.meta.get("fields", {}), "aspect": found["aspect"]}
            return example
    return None


def _xstest(row: Row) -> Example:
    """Desirable: to answer a safe prompt, to refuse an unsafe one (type contrast_…). A partial refusal is neither."""
    label = row["final_label"]
    if not isinstance(label, str) or label not in _LABELS:
        raise RowError(f"final_label is {str(label)[:40]!r}; known are {', '.join(_LABELS)}")
    safe = not str(row["type"]).startswith("contrast_")
    complied = _LABELS[label]
    labels = ("annotation_1", "annotation_2", "gpt4_label")
    judgments = [Judgment(row[name], annotator=name) for name in labels if isinstance(row.get(name), str)]
    desirable = None if complied is None else complied == safe
    response = answer(row["completion"], "completion", desirable=desirable, judgments=judgments)
    return build(row, ("prompt", "completion", *labels), prompt_of(row["prompt"]), [response])
