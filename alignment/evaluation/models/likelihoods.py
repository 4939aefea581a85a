"""Log-probs of sampled answers and of held-out text under a model, computed once and kept by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alignment.batching.groups import Group, Unit
from alignment.errors import UserError
from alignment.evaluation.models.answers import Answers
from alignment.evaluation.models.kept import kept_values
from alignment.evaluation.models.prompts import PromptSet, digest
from alignment.evaluation.models.sampled import slug
from alignment.evaluation.models.weights import Weights
from alignment.models.completion_sums import completion_sums
from alignment.resumable import OneProcess

VERSION = 1  # raised where what is stored changes its meaning
PIECE_BYTES = 1000  # of held-out text, scored as a whole: no more tokens than the smallest models have positions


class Text(NamedTuple):
    """Held-out text under one model: what each of its pieces costs."""

    nats: list[float]  # -log p, summed over the piece's tokens
    tokens: list[int]
    bytes: list[int]


def answer_logps(
    answers: Answers,
    asked: PromptSet,
    under: Weights,
    temperature: float,
    folder: Path,
    processes: OneProcess | None = None,
) -> list[list[float]]:
    """log p(answer | prompt) under the model `under`, in nats, of every sampled answer; a list for each prompt.

    Of the answers' token ids as they were drawn, end token included, at the softmax temperature that they were drawn
    with (1 for greedy answers).

    Args:
        answers: with token ids, of a model that shares its token ids with `under`.
    """
    settings = {"command": "eval", "version": VERSION, "under": under.key, "temperature": temperature or 1.0}
    path = folder / "likelihoods" / f"{answers.key}-under-{slug(under.spec)}-{digest(settings)}.jsonl"
    rows = [at for at, said in enumerate(answers.said) if said]

    def group(at: int) -> Group:
        return Group(tuple(under.encode(asked.prompts[at])), tuple(said.ids or () for said in answers.said[at]))

    def summed(chosen: Sequence[int]) -> list[list[float]]:
        return _summed(under, [Unit(str(at), (group(at),)) for at in chosen], temperature or 1.0)

    what = f"scoring {answers.of.name} under {under.spec}"
    found = kept_values(path, {**settings, "answers": answers.key}, what, "logps", rows, summed, processes)
    logps: list[list[float]] = [[] for _ in answers.said]
    for at, row in zip(rows, found, strict=True):
        logps[at] = row
    return logps


def held_out_text(file: Path, under: Weights, folder: Path, processes: OneProcess | None = None) -> Text:
    """The cost of the text in `file` under a model.

    It is cut into pieces of about PIECE_BYTES bytes between paragraphs or lines, the same for every model. Each begins
    behind the tokenizer's first token (its end token, where there is none), and all of its tokens are scored.

    Raises:
        UserError: no such file, no text in it, or a tokenizer without such a token.
    """
    pieces = text_pieces(read_text(file))
    start = next((t for t in (under.tokenizer.bos_token_id, under.tokenizer.eos_token_id) if t is not None), None)
    if start is None:
        raise UserError(f"--held-out: the tokenizer of {under.spec} has no token that text begins with")
    ids = [tuple(under.tokenizer(piece, add_special_tokens=False)["input_ids"]) for piece in pieces]
    settings = {"command": "eval", "version": VERSION, "under": under.key, "temperature": 1.0, "text": digest(pieces)}
    path = folder / "held_out" / f"{slug(under.spec)}-{digest(settings)}.jsonl"

    def summed(chosen: Sequence[int]) -> list[list[float]]:
        return _summed(under, [Unit(str(at), (Group((start,), (ids[at],)),)) for at in chosen])

    what, rows = f"reading under {under.spec}", range(len(pieces))
    found = kept_values(path, settings, what, "logps", rows, summed, processes)
    return Text([-row[0] for row in found], [len(row) for row in ids], [len(piece.encode()) for piece in pieces])


def read_text(file: Path) -> str:
    """The text of a file in UTF-8; UserError where there is none."""
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"--held-out {file}: not text in UTF-8 (byte {error.start + 1})") from error
    except OSError as error:
        raise UserError(f"--held-out {file}: cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise UserError(f"--held-out {file}: there is no text in it")
    return text


def text_pieces(text: str) -> list[str]:
    """`text` in pieces of at most PIECE_BYTES bytes, cut behind a paragraph, line, word or character.

    A cut lies in the second half of a piece. Together the pieces are the text, but for those of white space alone.
    """
    pieces: list[str] = []
    rest = text
    while rest:
        piece = rest.encode(errors="replace")[:PIECE_BYTES].decode(errors="ignore")
        if len(piece) < len(rest):
            cuts = (piece.rfind(mark) + len(mark) for mark in ("\n\n", "\n", " ") if 2 * piece.rfind(mark) > len(piece))
            piece = piece[: next(cuts, len(piece))]
        pieces += [piece] if piece.strip() else []
        rest = rest[len(piece) :]
    return pieces


def _summed(under: Weights, units: Sequence[Unit], temperature: float = 1.0) -> list[list[float]]:
    model, layout = under.scorer
    return completion_sums(model, units, layout, under.tokenizer.pad_token_id, temperature)
