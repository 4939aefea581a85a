"""Answers with the tokens that CUT detects in colour: on a terminal, as one HTML page, and in a run's report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from alignment.batching.judged import answer_text, span_of_tokens, wrong_span
from alignment.data.example import Message
from alignment.data.templates import token_texts
from alignment.data.views import Judged
from alignment.evaluation.files import json_lines, write_atomically
from alignment.evaluation.page import template
from alignment.evaluation.text import percent, shortened, visible

NAME = "highlights.jsonl"
STEPS = (1.5, 3.0, 10.0, 30.0)  # ratios at which a detected token's colour gets stronger
_STYLES = ("black on #ffe9d6", "black on #ffc7a3", "black on #ff9f7d", "black on #f0674f", "white on #c9261c")
_NAMED = 5  # detected tokens that are named below an answer on the terminal

Row = dict[str, Any]  # JSON-ready: id, prompt, judgment, margin, pieces: [{text, tokens, nats, wrong}]


class Detected(Protocol):
    """What `alignment.trainers.judged_detection.detect` gives for an answer."""

    @property
    def record(self) -> Judged: ...
    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def log_ratio(self) -> Sequence[float]: ...


def highlight(detected: Sequence[Detected], tokenizer: Any, margin: float) -> list[Row]:
    """One row an answer: its text in pieces of one token, or of several that share a character.

    A piece's `nats` is the largest log-ratio of its tokens: how much likelier the judgment makes it. It is detected
    above log `margin` (> 0). `wrong` says that it lies in the example's meta.wrong, where that is known.
    """
    rows = []
    for found in detected:
        wrong, pieces, at = _wrong_tokens(found, tokenizer), [], 0
        for text, count in token_texts(tokenizer, found.ids):
            places = range(at, at + count)
            nats = max(found.log_ratio[place] for place in places)
            marked = wrong is not None and any(place in wrong for place in places)
            pieces.append({"text": text, "tokens": count, "nats": round(nats, 4), "wrong": marked})
            at += count
        texts = {"prompt": _text(found.record.prompt), "judgment": found.record.judgment or ""}
        rows.append({"id": found.record.id, **texts, "margin": margin, "pieces": pieces})
    return rows


def _wrong_tokens(found: Detected, tokenizer: Any) -> range | None:
    """Places of the tokens in meta.wrong, [start, end) characters of the answer; None where that is not known."""
    span = wrong_span(found.record)
    if span is None:
        return None
    places = span_of_tokens(tokenizer, found.ids, answer_text(found.record), *span)
    return None if places is None else range(*places)


def _text(prompt: Sequence[Message]) -> str:
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def write_highlights(folder: Path, rows: Sequence[Row]) -> None:
    """Write highlights.jsonl of a run folder; the run's report shows it."""
    write_atomically(folder / NAME, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_highlights(folder: Path) -> list[Row]:
    """The rows of highlights.jsonl; none where there is no such file."""
    path = folder / NAME
    return list(json_lines(path)) if path.is_file() else []


def level(nats: float, margin: float) -> int:
    """How strong the colour of a token is: 0 where it is not detected, else 1 to 5."""
    if not nats > math.log(margin):
        return 0
    return 1 + sum(nats >= math.log(step) for step in STEPS if step > margin)


def describe(rows: Sequence[Mapping[str, Any]]) -> str:
    """How much was detected, in one line: of the tokens, and of the errors where those are known."""
    tokens = sum(piece["tokens"] for row in rows for piece in row["pieces"])
    hits = sum(piece["tokens"] for row in rows for piece in _hits(row))
    known = [row for row in rows if any(piece["wrong"] for piece in row["pieces"])]
    said = (
        f"{len(rows)} unsatisfactory answers, {percent(hits / tokens if tokens else math.nan)} of their tokens detected"
    )
    if known:
        caught = sum(any(piece["wrong"] for piece in _hits(row)) for row in known)
        said += f"; the known error is among them in {caught} of {len(known)}"
    return said


def _hits(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The detected pieces, the strongest first."""
    found = [piece for piece in row["pieces"] if level(piece["nats"], row["margin"])]
    return sorted(found, key=lambda piece: -piece["nats"])


def _facts(row: Mapping[str, Any]) -> str:
    tokens, hits = sum(piece["tokens"] for piece in row["pieces"]), sum(piece["tokens"] for piece in _hits(row))
    return f"{hits} of {tokens} tokens detected"


def ratio(nats: float) -> str:
    """`7.4×`: how many times likelier."""
    if nats > math.log(1e6):
        return "over 1,000,000×"
    times = math.exp(nats)
    return f"{times:,.0f}×" if times >= 100 else f"{times:.2g}×" if times < 10 else f"{times:.3g}×"


def print_highlights(rows: Sequence[Row], console: Console) -> None:
    """Print every answer with its detected tokens in colour; what they are is also said in words."""
    for place, row in enumerate(rows, start=1):
        console.print(
            Text().append(f"{place}  ", style="bold").append(shortened(visible(row["prompt"]), 1000), style="dim")
        )
        console.print(Text().append("judgment: ", style="bold").append(visible(row["judgment"]), style="italic"))
        answer = Text().append("answer:   ", style="bold")
        for piece in row["pieces"]:
            strength = level(piece["nats"], row["margin"])
            style = _STYLES[strength - 1] if strength else ""
            answer.append(visible(piece["text"]), style=f"{style} underline".strip() if piece["wrong"] else style)
        console.print(answer)
        hits = _hits(row)
        named = ", ".join(f"{visible(piece['text'])!r} {ratio(piece['nats'])}" for piece in hits[:_NAMED])
        more = f" and {len(hits) - _NAMED} more" if len(hits) > _NAMED else ""
        console.print(Text(f"{_facts(row)}{': ' if hits else ''}{named}{more}", style="dim"))
        console.print()
    console.print(Text(describe(rows), style="bold"))


def highlight_parts(rows: Sequence[Row]) -> dict[str, Any]:
    """What templates/highlights.html.j2 shows."""
    shown = []
    for place, row in enumerate(rows, start=1):
        pieces = [
            {
                "text": visible(piece["text"]),
                "level": level(piece["nats"], row["margin"]),
                "title": ratio(piece["nats"]),
                "wrong": piece["wrong"],
            }
            for piece in row["pieces"]
        ]
        texts = {"prompt": visible(row["prompt"]), "judgment": visible(row["judgment"])}
        shown.append({"place": place, **texts, "facts": _facts(row), "pieces": pieces})
    margin = rows[0]["margin"] if rows else 1.0
    levels = [f"over {margin:g}×", *(f"{step:g}×" for step in STEPS if step > margin)]
    planted = any(piece["wrong"] for row in rows for piece in row["pieces"])
    return {"highlights": shown, "summary": describe(rows), "levels": levels, "planted": planted}


def write_page(path: Path, rows: Sequence[Row], title: str, facts: Sequence[tuple[str, str]]) -> Path:
    """Write the answers as one HTML page that needs nothing else; `facts` (name, value) stand under the title."""
    told = [(name, visible(value)) for name, value in facts]
    parts = {"title": visible(title), "facts": told, **highlight_parts(rows)}
    return write_atomically(path, template("highlight_page.html.j2").render(**parts))
