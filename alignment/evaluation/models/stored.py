"""Answers out of a file, put beside the prompts that they answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from alignment.data.example import Example, Response
from alignment.data.readers import load_examples
from alignment.errors import UserError
from alignment.evaluation.models.answers import Answers, Said
from alignment.evaluation.models.contestants import Contestant
from alignment.evaluation.models.prompts import PromptSet, digest, prompt_key

SHOWN = 60  # characters of a prompt in a message


def stored_answers(contestant: Contestant, asked: PromptSet, n: int) -> Answers:
    """The first `n` answers of the file to each prompt, matched by the prompt's turns.

    Raises:
        UserError: the file answers none of the prompts, one of them in more rows than `n`, or holds the answers of
            several models without saying whose; rows of one id with different prompts.
    """
    file = contestant.spec
    loaded = load_examples(file)
    examples = list(loaded.examples)
    _refuse_shared_ids(file, examples)
    found = _by_prompt(file, examples, contestant.source)
    said = [_first(file, found.get(key, []), n) for key in asked.keys]
    given = sum(map(len, said))
    if not given:
        first = asked.prompts[0][-1]["content"]
        raise UserError(
            f"{file} answers none of the {len(asked)} prompts of {asked.name}, such as '{_short(first)}'"
            "\nMend: stored answers are matched by the whole text of their prompts; give the set that was answered"
        )
    key = digest("stored", [[answer.text for answer in row] for row in said])
    answers = Answers(contestant, said, file, key)
    skipped, others = loaded.report.skipped, len(found.keys() - set(asked.keys))
    if answers.missing:
        answers.notes.append(f"{file}: no answer to {answers.missing:,} of {len(asked):,} prompts")
    if skipped:
        answers.notes.append(
            f"{file}: rows that cannot be read: {len(skipped):,} (row {skipped[0].row}: {skipped[0].reason})"
        )
    if others:
        answers.notes.append(f"{file}: prompts that were not asked, left out: {others:,}")
    return answers


Row = tuple[int, list[Response]]  # number of the row, its answers


def _by_prompt(file: str, examples: Iterable[Example], source: str | None) -> dict[str, list[Row]]:
    """The rows that answer each prompt."""
    found: defaultdict[str, list[Row]] = defaultdict(list)
    sources: set[str] = set()
    for example in examples:
        sources |= {response.source for response in example.responses if response.source}
        own = [r for r in example.responses if source is None or r.source == source]
        found[prompt_key(example.prompt)] += [(int(example.meta["row"]), own)] if own else []
    if source is not None and source not in sources:
        raise UserError(
            f"{file} holds no answers of '{source}'; there are {', '.join(sorted(sources)) or 'none named'}"
        )
    if source is None and len(sources) > 1:
        first, second, *_ = sorted(sources)
        raise UserError(f"{file} holds answers of several models ({first}, {second}, …)\nMend: {file}#{first}")
    return {key: rows for key, rows in found.items() if rows}


def _first(file: str, rows: Sequence[Row], n: int) -> list[Said]:
    """The first n answers of a prompt. Several rows are several answers, and none of them is passed over in silence."""
    if len(rows) > 1 and _count(rows) > n:
        rows = list({tuple(answer.text for answer in answers): (row, answers) for row, answers in rows[::-1]}.values())
        rows.reverse()  # equal ones once, where the first of them stood
    if len(rows) > 1 and _count(rows) > n:
        numbers = " and ".join(str(row) for row, _ in rows[:3])
        raise UserError(
            f"{file}: rows {numbers} answer one prompt differently, and there is room for {n} (-n {n})"
            f"\nMend: leave the right one, or -n {_count(rows)} for all"
        )
    return [Said(response.text) for _, answers in rows for response in answers][:n]


def _count(rows: Sequence[Row]) -> int:
    return sum(len(answers) for _, answers in rows)


def _refuse_shared_ids(file: str, examples: Iterable[Example]) -> None:
    known: dict[Any, tuple[int, str]] = {}
    for example in examples:
        fields = example.meta.get("fields")
        own = fields.get("id") if isinstance(fields, dict) else None
        if not isinstance(own, str | int):
            continue
        row, key = int(example.meta["row"]), prompt_key(example.prompt)
        before, other = known.setdefault(own, (row, key))
        if other != key:
            raise UserError(
                f"{file}: rows {before} and {row} have the id {own} and different prompts"
                "\nMend: one of them is wrong; answers are matched by their prompts, so an id may also be left out"
            )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
