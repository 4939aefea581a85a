"""`align improve`: prompts with answers in, example records with the answers of every round out, batch by batch."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from alignment.data.example import Example, Response, content_id
from alignment.data.examples import Examples
from alignment.data.readers import load_examples
from alignment.errors import UserError, unknown
from alignment.evaluation.files import json_lines
from alignment.feedback.label import identity_of
from alignment.resumable import STDOUT, open_output, progress, stoppable
from alignment.rollouts.improve import REASONS, Improved, Round
from alignment.rollouts.improver import Improver
from alignment.rollouts.sample_file import digest_of_files
from alignment.rollouts.sampler import Rollout

BY_PREFERENCE = ("better", "worse")
OF = ("all", "first", "last", *BY_PREFERENCE)
_STALE = ("id", "sampled", "improved")  # of meta: what is said of answers that are not there


@dataclass(frozen=True)
class Models:
    """The models behind an `Improver`, as they were named."""

    improver: str
    adapter: str | None = None
    gap: str | None = None
    policy: str | None = None

    def digests(self) -> dict[str, Any]:
        """Each name with a digest of its files; the gap's weights are in its identity."""
        named = {"model": self.improver, "adapter": self.adapter, "policy": self.policy}
        return {key: name and [name, digest_of_files(name)] for key, name in named.items()} | {"gap": self.gap}


def improve_file(
    source: Any,
    out: Path,
    improver: Improver,
    models: Models,
    *,
    of: str = "all",
    answer_first: bool = False,
    format: str = "auto",
    split: str = "train",
    limit: int | None = None,
    overwrite: bool = False,
    shown: int = 0,
) -> tuple[str, list[dict[str, Any]]]:
    """Improve the answers of `source` and write one example record an answer to `out`.

    A record's responses are the answer as it was and that of every round, in order; `meta["improved"]` says which was
    kept, why the rounds ended, and of each round its gap, its tokens and what was cut. A record depends on its texts,
    the settings and the seed: not on the other rows, nor on where the work was interrupted.

    Args:
        source, format, split: as for `load_examples`.
        out: ends in .jsonl, and what is there of the same work is gone on with; or - for the standard output.
        improver: made from `models`.
        of: which answers of an example: of OF.
        answer_first: an example without an answer is answered by the improver's policy, and that answer is improved.
            Else it is left out and counted.
        limit: at most so many examples, sampled with the seed, in their order.
        overwrite: begin anew.

    Returns:
        (some lines for a person, the first `shown` records).

    Raises:
        UserError: as `load_examples`, `Improver` and `ResumableFile` do; no answer to improve.
    """
    if of not in OF:
        raise unknown("choice of answers", of, OF)
    if answer_first and improver.policy is None:
        raise UserError("--answer-first needs --policy MODEL, which answers")
    loaded = load_examples(source, format=format, split=split, limit=limit, seed=improver.settings.seed)
    rows, without, mark = _rows(loaded.examples, of, answer_first)
    if not rows:
        mend = "--of all" if of in BY_PREFERENCE else "--answer-first --policy MODEL"
        raise UserError(f"{source}: {without} prompts without {_wanted(of)} to improve: {mend}")
    file = open_output(out, _made_with(improver, models, mark), overwrite=overwrite, sources=[str(source)])

    def hint() -> str:
        goes_on = "" if str(out) == STDOUT else "; the same command goes on"
        return f"stopped: {file.totals['answers']} of {len(rows)} answers are improved in {out}{goes_on}"

    at_once, first = improver.settings.batch_size, list[dict[str, Any]]()
    try:
        with stoppable(hint), progress("improving", file.totals["answers"], len(rows)) as advance:
            for number in range(file.batches, math.ceil(len(rows) / at_once)):
                batch = rows[number * at_once : (number + 1) * at_once]
                records, totals = _improved(improver, models, [(loaded.examples[i], at) for i, at in batch])
                file.add(records, totals)
                first += records[: max(0, shown - len(first))]
                advance(len(batch))
    finally:
        file.close()
    if str(out) != STDOUT:  # those of earlier calls are among them
        first = list(islice(json_lines(out), shown))
    return f"{loaded.report.summary()}\n{_summary(file.totals, out, without, of)}", first


def _made_with(improver: Improver, models: Models, mark: str) -> dict[str, Any]:
    """All that the records depend on."""
    return {
        "command": "improve",
        **models.digests(),
        "what stands behind the gap": None if improver.gap is None else identity_of(improver.gap),
        "answers": mark,
        **asdict(improver.settings),
    }


def answers_of(example: Example, of: str) -> list[int]:
    """The places of the answers that `of` means, blank ones left out: all, first, last, or of those that the example's
    preferences compare the better or the worse, the one preferred most or least often; none where no two differ.
    """
    said = [at for at, response in enumerate(example.responses) if response.text.strip()]
    if of not in BY_PREFERENCE:
        return {"all": said, "first": said[:1], "last": said[-1:]}[of]
    shares: defaultdict[int, list[float]] = defaultdict(list)
    for found in example.preferences:
        shares[found.first].append(found.p_first)
        shares[found.second].append(1 - found.p_first)
    preferred = {at: fmean(share) for at, share in shares.items() if at in said}
    if len(set(preferred.values())) < 2:
        return []
    return [(max if of == "better" else min)(preferred, key=lambda at: preferred[at])]


def _rows(examples: Examples, of: str, answer_first: bool) -> tuple[list[tuple[int, int | None]], int, str]:
    """((example, response) of each answer to improve, examples without an answer left out, a digest of all rows)."""
    rows: list[tuple[int, int | None]] = []
    without, mark = 0, hashlib.blake2b(digest_size=8)
    for number, example in enumerate(examples):
        chosen: Sequence[int | None] = answers_of(example, of)
        if not chosen and answer_first and not answers_of(example, "all"):
            chosen = [None]
        without += not chosen
        rows += [(number, at) for at in chosen]
        mark.update(f"{content_id(example)} {chosen}".encode())
    return rows, without, mark.hexdigest()


def _improved(
    improver: Improver, models: Models, rows: Sequence[tuple[Example, int | None]]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The records of a batch, and what is to be added to the sums."""
    prompts = [example.prompt for example, _ in rows]
    answers: list[Response | None] = [None if at is None else example.responses[at] for example, at in rows]
    missing = [row for row, answer in enumerate(answers) if answer is None]
    made = improver.first_answers([prompts[row] for row in missing]) if missing else []
    first = dict(zip(missing, made, strict=True))
    for row, rollout in first.items():
        if rollout is not None and rollout.text:
            answers[row] = Response.of(rollout.text, source=models.policy)
    found = improver.improve(prompts, [answer.text if answer else "" for answer in answers])
    totals: Counter[str] = Counter(answers=len(rows))
    records = []
    for row, (example, _) in enumerate(rows):
        records.append(_record(example, answers[row], first.get(row), found[row], models, improver))
        totals.update(_counts(found[row], first.get(row)))
    return records, totals


def _record(
    example: Example,
    answer: Response | None,
    first: Rollout | None,
    improved: Improved,
    models: Models,
    improver: Improver,
) -> dict[str, Any]:
    responses = [answer] if answer else []
    places: list[int | None] = []  # of each round's answer among the responses
    for number, each in enumerate(improved.rounds, 1):
        said = each.text and not each.proposal.satisfied
        places.append(len(responses) if said else None)
        responses += [Response.of(each.text, source=f"{models.improver}, round {number}")] if said else []
    settings = improver.settings
    original = 0 if answer else None
    note = {
        "model": models.improver,
        **{key: value for key, value in asdict(models).items() if key != "improver" and value},
        "original": original,
        "kept": original if improved.kept is None else places[improved.kept],
        "stopped": improved.stopped,
        "rounds": [_note(each, place) for each, place in zip(improved.rounds, places, strict=True)],
        **{key: getattr(settings, key) for key in ("way", "temperature", "top_p", "max_new_tokens", "seed")},
        "rule": improver.rule,
    }
    if first is not None:
        note["answered_first"] = {"tokens": len(first.completion), "cut": not first.finished}
    meta = {key: value for key, value in example.meta.items() if key not in _STALE}
    return Example(example.prompt, responses, meta={**meta, "improved": note}).to_dict()


def _note(each: Round, place: int | None) -> dict[str, Any]:
    proposal = each.proposal
    note = {
        "response": place,
        "kept": each.kept,
        "gap": _finite(each.gap),
        "over_itself": _finite(each.over_itself),
        "tokens": proposal.drawn,
        "cut": not proposal.finished,
        "reference_cut": proposal.reference_cut,
    }
    return note | ({"critique": proposal.critique} if proposal.critique is not None else {})


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _counts(improved: Improved, first: Rollout | None) -> dict[str, int]:
    kept = None if improved.kept is None else improved.rounds[improved.kept].proposal
    return {
        "changed": improved.text != improved.original,
        "rounds": len(improved.rounds),
        "drawn": improved.drawn(),
        "answered first": first is not None,
        "cut": kept is not None and not kept.finished,
        "reference cut": any(each.proposal.reference_cut for each in improved.rounds),
        f"stopped {improved.stopped}": 1,
    }


def _wanted(of: str) -> str:
    return (
        f"an answer that is preferred {'most' if of == 'better' else 'least'}" if of in BY_PREFERENCE else "an answer"
    )


def _summary(totals: Counter[str], out: Path, without: int, of: str) -> str:
    answers = totals["answers"]
    where = "written" if str(out) == STDOUT else f"in {out}"
    lines = [
        f"{answers} answers {where}: {totals['changed']} changed ({totals['changed'] / answers:.0%}), over "
        f"{totals['rounds'] / answers:.1f} rounds and {totals['drawn'] / answers:,.0f} tokens each",
        "ended: " + ", ".join(f"{reason} {n}" for reason in REASONS if (n := totals[f"stopped {reason}"])),
    ]
    counted = [
        f"{totals[key]} {what}"
        for key, what in (
            ("answered first", "answered first by the policy"),
            ("cut", "kept though cut at max_new_tokens"),
            ("reference cut", "longer than the improver is shown, their end not seen"),
        )
        if totals[key]
    ] + ([f"{without} prompts without {_wanted(of)}, left out"] if without else [])
    return "\n".join([*lines, "; ".join(counted)] if counted else lines)
