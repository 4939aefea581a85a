"""TICK (2410.03608): a checklist written for the prompt, and the share of it that an answer passes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.asking import Asking, Verdict
from alignment.feedback.protocols import Context, Judge, Prompts, Reward
from alignment.feedback.templates import load_template
from alignment.feedback.verdicts import marked_lines


@dataclass(kw_only=True)
class Checklist(Asking, Reward, Judge):
    """The share of a prompt's yes-or-no questions that are answered YES for an answer, in [0, 1].

    The questions of a prompt are written once by the model, or given as context["checklist"], a list of texts. Each is
    asked on its own. A reply that says neither YES nor NO counts as NO (`counts["unreadable, taken as no"]`). A prompt
    without a checklist, or a question to which no reply came, is no verdict. As a judge: the higher share wins, equal
    shares are a tie.

    Over all questions asked, `counts["yes"] / counts["questions"]` is the paper's DRFR.
    """

    write_template: str = "checklist_write"
    template: str = "checklist_answer"
    most_questions: int = 10  # those beyond are not asked

    def __post_init__(self) -> None:
        checks.number(self, "most_questions", 1, whole=True)
        self._write = load_template(self.write_template, ("prompt",), verdicts=False)
        self._template = load_template(self.template, ("prompt", "answer", "question"))
        self._written: dict[str, list[str]] = {}  # by prompt
        super().__post_init__()

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        lists = self.questions(prompts, context)
        rows = [i for i, questions in enumerate(lists) for _ in questions]
        requests = [
            self._template.fill({"prompt": prompt, "answer": completion, "question": question})
            for prompt, completion, questions in zip(prompts, completions, lists, strict=True)
            for question in questions
        ]
        passed: list[list[float]] = [[] for _ in lists]
        for i, verdict in zip(rows, self.verdicts(requests, self._template), strict=True):
            passed[i].append(self._answer(verdict))
        return [sum(each) / len(each) if each else math.nan for each in passed]

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        twice = None if context is None else [*context, *context]
        shares = self.score([*prompts, *prompts], [*first, *second], twice)
        return [_higher(a, b) for a, b in zip(shares[: len(first)], shares[len(first) :], strict=True)]

    def questions(self, prompts: Prompts, context: Context = None) -> list[list[str]]:
        """The checklist of each row; an empty one where none could be had.

        Raises:
            UserError: a context["checklist"] that is no list of texts.
        """
        given = [_given(number, row) for number, row in enumerate(context or [{}] * len(prompts))]
        names = [json.dumps(prompt, sort_keys=True) for prompt in prompts]
        missing = {
            name: self._write.fill({"prompt": prompt})
            for name, prompt, own in zip(names, prompts, given, strict=True)
            if own is None and name not in self._written
        }
        for (name, request), reply in zip(missing.items(), self.replies(list(missing.values())), strict=True):
            found = [question for question in marked_lines(reply.text or "", request.line) if question]
            if found and reply.failure is None:
                self._written[name] = list(dict.fromkeys(found))[: self.most_questions]
            else:
                self.counted(Verdict(math.nan, f"checklist: {reply.failure or 'no question line'}"))
        return [self._written.get(name, []) if own is None else own for name, own in zip(names, given, strict=True)]

    def _answer(self, verdict: Verdict) -> float:
        """1 for YES, 0 for NO, NaN where no reply came."""
        if verdict.failure and not verdict.answered:
            return self.counted(verdict)
        self.counts["questions"] += 1
        self.counts["unreadable, taken as no"] += verdict.failure is not None
        yes = verdict.value > 0.5  # False for NaN
        self.counts["yes"] += yes
        return float(yes)


def _given(number: int, row: Mapping[str, object]) -> list[str] | None:
    own = row.get("checklist")
    if own is None:
        return None
    if not isinstance(own, (list, tuple)) or not own or not all(isinstance(question, str) for question in own):
        raise UserError(f"checklist: the context of row {number} has a checklist that is no list of questions")
    return list(own)


def _higher(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return math.nan
    return 0.5 if a == b else float(a > b)
