"""What learning from written judgments reads out of examples: answers, each with what was said of it."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from alignment.data.example import Example, Judgment, Response
from alignment.data.judgments import cut_off, only_praise
from alignment.data.views import Counts, Judged


def judged(examples: Iterable[Example], *, satisfied_from: float | None = None) -> tuple[list[Judged], Counts]:
    """Answers with a written judgment, one for each judgment; a blank judgment is no text.

    Rows that judge the same answer again have the same example id: from the second on, the record's id is numbered.

    Args:
        examples: any examples.
        satisfied_from: where a judgment gives no verdict, or there is none, the answer's score decides: this much or
            more is satisfactory, in the score's unit. None: scores are not looked at.

    Returns:
        (records, counts). Left out and counted: "no judgment" (answers), "no verdict", "empty answer", and of the
        unsatisfactory ones "no text" (nothing says what is wrong) and "only praise" (the text contradicts the verdict).
        Counted and kept: "cut judgment" (the text stops in the middle of a sentence).
    """
    found: list[Judged] = []
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for example in examples:
        for number, response in enumerate(example.responses):
            by_score = _by_threshold(response.score, satisfied_from)
            judgments = response.judgments or ([Judgment()] if by_score is not None else [])
            if not judgments:
                counts["no judgment"] += 1
            for index, judgment in enumerate(judgments):
                text = judgment.text if judgment.text and judgment.text.strip() else None
                satisfactory = by_score if judgment.satisfactory is None else judgment.satisfactory
                reason = _unusable(response, text, satisfactory)
                if reason is not None:
                    counts[reason] += 1
                    continue
                if text is not None and cut_off(text):
                    counts["cut judgment"] += 1
                suffix = f":{number}-{index}" if len(example.responses) > 1 or len(judgments) > 1 else ""
                name = example.id + suffix
                seen[name] += 1
                name += f"#{seen[name]}" if seen[name] > 1 else ""
                record = (name, example.prompt, response.messages, text, bool(satisfactory))
                found.append(Judged(*record, meta=example.meta, cut=_was_cut(example, number)))
    return found, dict(counts)


def _was_cut(example: Example, response: int) -> bool:
    """What meta.sampled says, where `align sample` made the answer."""
    made = example.meta.get("sampled")
    for notes in made if isinstance(made, list) else []:
        if isinstance(notes, dict) and response in (notes.get("responses") or []):
            return bool(notes["cut"][notes["responses"].index(response)])
    return False


def _by_threshold(score: float | None, satisfied_from: float | None) -> bool | None:
    if satisfied_from is None or score is None or math.isnan(score):
        return None
    return score >= satisfied_from


def _unusable(response: Response, text: str | None, satisfactory: bool | None) -> str | None:
    """Why a judged answer is left out, or None."""
    if not response.text.strip():
        return "empty answer"
    if satisfactory is None:
        return "no verdict"
    if satisfactory:
        return None
    return "no text" if text is None else "only praise" if only_praise(text) else None


def downsample(records: Sequence[Judged], ratio: float | None, seed: int = 0) -> tuple[list[Judged], Counts]:
    """All unsatisfactory records, and int(ratio × their number) satisfactory ones drawn with `seed`, in their order.

    A good model's answers are mostly satisfactory; CUT's authors keep a ratio of 0.25. None keeps all, and so does a
    ratio that asks for more than there are. Counted: "satisfactory beyond the ratio".
    """
    if ratio is not None and not 0 <= ratio < math.inf:
        raise ValueError(f"ratio={ratio!r}: a number of 0 or more, or None")
    satisfactory = [index for index, record in enumerate(records) if record.satisfactory]
    wanted = len(satisfactory) if ratio is None else ratio * (len(records) - len(satisfactory))
    if wanted >= len(satisfactory):
        return list(records), {}
    drawn = set(random.Random(seed).sample(satisfactory, int(wanted)))
    kept = [record for index, record in enumerate(records) if not record.satisfactory or index in drawn]
    return kept, {"satisfactory beyond the ratio": len(records) - len(kept)}
