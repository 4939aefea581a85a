"""What every LLM judge does: fill a template, ask a model, and take the verdict as a number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.chat import ChatSettings, ScoringChat, open_chat
from alignment.feedback.protocols import Context, Prompts
from alignment.feedback.templates import Request, Template
from alignment.feedback.verdicts import Reply, before_verdict, read_words

READS = ("auto", "probabilities", "text")
# Settings on which no answer depends: how fast it is asked, and how much.
NO_MATTER = {"token_budget", "batch_size", "timeout", "max_retries", "concurrency", "api_key_env", "cache", "chat"}
NO_MATTER |= {"max_requests", "max_total_tokens"}


@dataclass(frozen=True)
class Verdict:
    """A verdict as the number that its template gives it; NaN where there is none, and `failure` says why."""

    value: float
    failure: str | None = None
    answered: bool = True  # False: no text came back (time-out, budget, …)
    text: str | None = None  # what was written before the verdict


@dataclass(kw_only=True)
class Asking(ChatSettings):
    """Base of all judges and critics that ask a model.

    `read` says where the verdict is read: `probabilities` of the verdict words, without a word being written (a model
    in this process only; the mean of what they mean is the verdict), or the `text` that the model writes. `auto` takes
    the probabilities where they can be had.

    `counts` has the requests made ("requests"), those answered from disk ("cached"), the tokens that a server used
    ("tokens"), and the requests without a verdict by reason ("no verdict: …").
    """

    read: str = "auto"

    def __post_init__(self) -> None:
        checks.choice(self, "read", READS)
        self.counts: Counter[str] = Counter()
        self._chat = open_chat(self, self.counts)
        scores = hasattr(self._chat, "word_probabilities")
        if self.read == "probabilities" and not scores:
            raise checks.WrongSetting(self, "read", "a served model gives no probabilities; take text")
        self._by_probability = scores and self.read != "text"

    def identity(self) -> dict[str, Any]:
        """All that a verdict depends on besides the row: the settings, the templates' text, and a chat of one's own."""
        chat = self.chat and [type(self.chat).__qualname__, self.chat.name]
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NO_MATTER}
        texts = {name: vars(value) for name, value in vars(self).items() if isinstance(value, Template)}
        return {**given, "chat": chat, **texts}

    def answer_requests(
        self, template: Template, prompts: Prompts, completions: Sequence[str], context: Context
    ) -> list[Request]:
        """One request a row: `template` with the row's prompt and answer, and the reference where it has that slot."""
        known = references(template, context, len(completions))
        return [
            template.fill({"prompt": prompt, "answer": completion, **more})
            for prompt, completion, more in zip(prompts, completions, known, strict=True)
        ]

    def verdicts(self, requests: Sequence[Request], template: Template) -> list[Verdict]:
        """The verdict on each of `requests`, which `template` made."""
        if self._by_probability:
            return self._from_probabilities(requests, template)
        return [
            self._from_text(reply, request, template)
            for reply, request in zip(self.replies(requests), requests, strict=True)
        ]

    def written_verdicts(self, requests: Sequence[Request], template: Template) -> list[Verdict]:
        """The same with the text that leads to the verdict.

        By probabilities the verdict is read behind that text, whether or not the model came to write one itself.
        """
        replies = self.replies(requests)
        if not self._by_probability:
            return [self._from_text(reply, r, template) for reply, r in zip(replies, requests, strict=True)]
        texts = [before_verdict(reply.text or "", r.line) for reply, r in zip(replies, requests, strict=True)]
        whole = [i for i, reply in enumerate(replies) if reply.failure is None]
        led = [replace(requests[i], line=f"{texts[i]}\n{requests[i].line}") for i in whole]
        found = dict(zip(whole, self._from_probabilities(led, template), strict=True))
        return [
            replace(found[i], text=texts[i]) if i in found else Verdict(math.nan, reply.failure, reply.text is not None)
            for i, reply in enumerate(replies)
        ]

    def replies(self, requests: Sequence[Request]) -> list[Reply]:
        return self._chat.generate([request.messages for request in requests]) if requests else []

    def counted(self, verdict: Verdict) -> float:
        """The verdict's value; one that is none is counted by its reason."""
        if verdict.failure:
            self.counts[f"no verdict: {verdict.failure}"] += 1
        return verdict.value

    def _from_probabilities(self, requests: Sequence[Request], template: Template) -> list[Verdict]:
        if not requests:
            return []
        words, meanings = list(template.verdicts), list(template.verdicts.values())
        found = cast(ScoringChat, self._chat).word_probabilities(
            [request.messages for request in requests], [request.line for request in requests], words
        )
        return [
            Verdict(math.nan, "prompt too long", answered=False)
            if row is None
            else Verdict(sum(p * meaning for p, meaning in zip(row, meanings, strict=True)))
            for row in found
        ]

    def _from_text(self, reply: Reply, request: Request, template: Template) -> Verdict:
        words, failure = read_words(reply, request.line, template.verdicts)
        text = None if reply.text is None else before_verdict(reply.text, request.line)
        value = math.nan if words is None else template.verdicts[words[0]]
        return Verdict(value, failure, reply.text is not None, text)


def references(template: Template, context: Context, rows: int) -> list[Mapping[str, Any]]:
    """What fills the slot {reference} of each row, where `template` has it.

    Raises:
        UserError: a row without context["reference"].
    """
    if "reference" not in template.slots:
        return [{}] * rows
    found: list[Mapping[str, Any]] = []
    for number, row in enumerate(context if context is not None else [{}] * rows):
        if not row.get("reference"):
            raise UserError(f"judge template {template.name}: row {number} has no reference in its context")
        found.append({"reference": row["reference"]})
    return found
