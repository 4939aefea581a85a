"""Judged answers -> units of token ids, for CUT and for what it is compared with; and where in them a span lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignment.batching.groups import Group, Unit
from alignment.batching.units import TokenCounts, checked, encode_group
from alignment.config import DataConfig
from alignment.data.judgment_prompts import JudgmentTemplate
from alignment.data.templates import encode_pair
from alignment.data.views import Judged
from alignment.errors import UserError

# How an answer stands in its unit. A satisfactory one has one group, of the plain prompt, unless it is said otherwise.
#   cut                 unsatisfactory: under the plain prompt, and under the prompt with its judgment; aside, under
#                       the prompt with the fake positive judgment
#   authors_code        the same without what is aside
#   hindsight           unsatisfactory: under the prompt with its judgment
#   conditional         the same; satisfactory: under the prompt with the positive judgment
#   forward_prediction  both kinds: under the plain prompt, with the judgment written behind the answer
#   plain               both kinds: under the plain prompt
#   satisfactory        the plain ones of these alone
Form = Literal["cut", "authors_code", "hindsight", "conditional", "forward_prediction", "plain", "satisfactory"]
AFTER = "\nJudgment: "  # between an answer and its judgment, in forward prediction


def judged_units(
    records: Sequence[Judged], tokenizer: Any, data: DataConfig, template: JudgmentTemplate, form: Form
) -> tuple[list[Unit], TokenCounts]:
    """One unit an answer, its groups as `form` says, with the same completion ids in all of them.

    `values["satisfactory"]` is 1 or 0.

    Raises:
        UserError: a prompt over the limit, with its judgment or without, and on_bad_row=stop; no answer left; an
            unsatisfactory answer without a judgment; a chat template that writes the answer differently behind one.
    """
    counts = TokenCounts("answers")
    wanted = [record for record in records if record.satisfactory or form != "satisfactory"]
    encoder = _Encoder(tokenizer, data, template, counts)
    found = [encoder.unit(record, form) for record in wanted]
    return checked([unit for unit in found if unit is not None], len(wanted), data, counts), counts


@dataclass(frozen=True)
class _Encoder:
    tokenizer: Any
    data: DataConfig
    template: JudgmentTemplate
    counts: TokenCounts

    def unit(self, record: Judged, form: Form) -> Unit | None:
        """None where the answer is left out, which is counted."""
        if not record.satisfactory and record.judgment is None and form not in ("plain", "satisfactory"):
            raise UserError(f"{record.id}: an unsatisfactory answer needs a judgment, or nothing says what is wrong")
        prompt = self.template.asked(record.prompt)
        plain = encode_group(record.id, prompt, (record.completion,), self.tokenizer, self.data, self.counts)
        if plain is None:
            return None
        if record.cut:
            plain = Group(plain.prompt, (without_end(self.tokenizer, plain.completions[0]),))
        groups: list[Group | None] = [plain]
        aside: list[Group | None] = []
        judgment = record.judgment or self.template.positive
        if form == "forward_prediction":
            groups = [self.followed(plain, judgment)]
        elif form == "conditional" and record.satisfactory:
            groups = [self.judged(record, plain, self.template.positive)]
        elif form in ("hindsight", "conditional") and not record.satisfactory:
            groups = [self.judged(record, plain, judgment)]
        elif form in ("cut", "authors_code") and not record.satisfactory:
            groups = [plain, self.judged(record, plain, judgment)]
            aside = [self.judged(record, plain, self.template.positive)] if form == "cut" else []
        kept, kept_aside = [[group for group in part if group is not None] for part in (groups, aside)]
        if len(kept) < len(groups) or len(kept_aside) < len(aside):
            self.counts.judgment_too_long.append(record.id)
            return None
        if form not in ("plain", "satisfactory") and self.judged_part_is_cut(record, plain):
            self.counts.judged_part_cut.append(record.id)
            return None
        return Unit(record.id, tuple(kept), {"satisfactory": float(record.satisfactory)}, tuple(kept_aside))

    def judged_part_is_cut(self, record: Judged, plain: Group) -> bool:
        """Whether what is wrong with a bad answer is known (meta.wrong), and all of it lies behind the cut."""
        span = wrong_span(record)
        if record.satisfactory or span is None or len(plain.completions[0]) < self.data.max_completion_length:
            return False
        said = self.tokenizer.decode(plain.completions[0], skip_special_tokens=True)
        return answer_text(record)[: span[0] + 1] not in said

    def judged(self, record: Judged, plain: Group, judgment: str) -> Group | None:
        """The answer under the prompt with `judgment`; None where that is too long."""
        prompt = self.template.with_judgment(record.prompt, judgment)
        ids, completion = encode_pair(self.tokenizer, prompt, record.completion, self.data.template)
        most = self.data.max_prompt_length
        if len(ids) > most:
            if self.data.on_bad_row == "stop":
                raise UserError(
                    f"the prompt of {record.id} has {len(ids)} tokens with its judgment, data.max_prompt_length is "
                    f"{most}: raise it, or data.on_bad_row=skip"
                )
            return None
        answer = tuple(completion[: self.data.max_completion_length])
        if (without_end(self.tokenizer, answer) if record.cut else answer) != plain.completions[0]:
            raise UserError(
                f"{record.id}: with a judgment in the prompt the chat template writes the answer differently, so its "
                "tokens cannot be compared: give model.chat_template=FILE.jinja, or data.template=raw"
            )
        return Group(tuple(ids), plain.completions)

    def followed(self, plain: Group, judgment: str) -> Group:
        """The answer with its judgment behind it, as one completion, cut at the limit."""
        after = self.tokenizer(AFTER + judgment, add_special_tokens=False)["input_ids"]
        whole = (*plain.completions[0], *after, self.tokenizer.eos_token_id)
        limit = self.data.max_completion_length
        if len(plain.completions[0]) < limit < len(whole):  # a longer answer was counted already
            self.counts.truncated += 1
        return Group(plain.prompt, (whole[:limit],))


def without_end(tokenizer: Any, ids: tuple[int, ...]) -> tuple[int, ...]:
    """The token ids of an answer that has no end of its own, without the one that its template wrote."""
    return ids[:-1] if ids and ids[-1] in tokenizer.all_special_ids else ids


def answer_text(record: Judged) -> str:
    """The text of the answer's turns; meta.wrong counts its characters."""
    return "".join(message["content"] for message in record.completion)


def wrong_span(record: Judged) -> tuple[int, int] | None:
    """[start, end) characters of the answer that are known to be wrong: its meta.wrong, where that is two integers."""
    span = record.meta.get("wrong")
    if isinstance(span, (list, tuple)) and len(span) == 2 and all(type(end) is int for end in span):
        return span[0], span[1]
    return None


def span_of_tokens(tokenizer: Any, ids: Sequence[int], text: str, start: int, end: int) -> tuple[int, int] | None:
    """(first, behind the last) of the tokens `ids` of an answer that write characters [start, end) of its `text`.

    None where the tokens do not write the text that far, as when the answer was cut.
    """
    if not 0 <= start < end <= len(text):
        return None
    ends = [len(tokenizer.decode(ids[: place + 1], skip_special_tokens=True)) for place in range(len(ids))]
    offset = tokenizer.decode(ids, skip_special_tokens=True).find(text[:end])
    if offset < 0:
        return None
    starts = [0, *ends[:-1]]
    inside = [
        place
        for place, (begin, stop) in enumerate(zip(starts, ends, strict=True))
        if begin < offset + end and stop > offset + start
    ]
    return inside[0], inside[-1] + 1
