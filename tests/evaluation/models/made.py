"""Prompt sets, answers and opinions made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.evaluation.models.answers import Answers, Said
from alignment.evaluation.models.contestants import Contestant
from alignment.evaluation.models.opinions import Opinion
from alignment.evaluation.models.prompts import PromptSet
from alignment.feedback.protocols import Context, Judge, Prompts


def prompts(*texts: str) -> PromptSet:
    return PromptSet("made", [[{"role": "user", "content": text}] for text in texts], [{} for _ in texts])


def answers(name: str, *rows: Sequence[str]) -> Answers:
    """Stored answers, a row a prompt."""
    said = [[Said(text) for text in row] for row in rows]
    return Answers(Contestant(name, f"{name}.jsonl", stored=True), said, f"{name}.jsonl", name)


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@dataclass
class Longer(Judge):
    """Prefers the longer text, and the first of two as long ones; is down after so many rows in all."""

    rows: float = float("inf")
    asked: list[tuple[str, str]] = field(default_factory=list, init=False)

    def identity(self) -> str:
        return "longer"

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        if len(self.asked) + len(first) > self.rows:
            raise ConnectionError("no answer\nfrom the server")
        self.asked += list(zip(first, second, strict=True))
        return [float(len(a) >= len(b)) for a, b in zip(first, second, strict=True)]


def judge(feedback: Any, name: str = "judge") -> Opinion:
    return Opinion(name, feedback, "--judge")


def reward(feedback: Any, name: str = "score") -> Opinion:
    return Opinion(name, feedback, "--score")
