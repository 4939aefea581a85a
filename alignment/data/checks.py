"""The pre-flight report: what a run on this data would meet, with row numbers, before any model is loaded."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.data.example import Example, Message
from alignment.data.examples import Examples
from alignment.data.judged_view import judged
from alignment.data.rating_agreement import RatingAgreement, rating_agreement
from alignment.data.readers import Loaded, NoUsableRows, load_examples
from alignment.data.templates import check_tokenizer, encode_pair, encode_prompt, token_texts
from alignment.data.views import Judged, Pair, pairs, unpaired
from alignment.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

PROBLEMS = (
    "bad rows",
    "empty answers",
    "identical answers",
    "duplicate pairs",
    "contradictory pairs",
    "prompts over the limit",
    "prompts in the evaluation set",
)
_KINDS = {"empty": "empty answers", "identical": "identical answers"}


@dataclass(frozen=True)
class Finding:
    """One row, and what is the matter with it."""

    file: str
    row: int
    note: str


@dataclass(frozen=True)
class Lengths:
    """Lengths of prompts or answers, in the report's unit."""

    count: int
    mean: float
    median: float
    longest: int
    over_limit: int | None  # None where tokens are not counted


@dataclass(frozen=True)
class LengthBias:
    """How often the chosen answer is the longer one, over pairs of different length."""

    pairs: int
    share: float
    ci95: tuple[float, float]  # exact binomial (Clopper-Pearson)
    mean_difference: float  # chosen minus rejected, over all pairs, in the report's unit


@dataclass(frozen=True)
class JudgedAnswers:
    """The written judgments, as the view `judged` gives them."""

    records: int
    satisfactory: int
    counts: dict[str, int]  # of the view


@dataclass
class CheckReport:
    """Everything that was found. `problems` and `warnings` hold one list a check, empty where all is well."""

    path: str
    unit: str  # "tokens" or "words"
    rows_read: int = 0
    kept: int = 0
    examples: int = 0
    pairs: int = 0
    labelled: int = 0  # single answers with a label
    formats: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)  # of the pairs view
    lengths: dict[str, Lengths] = field(default_factory=dict)
    problems: dict[str, list[Finding]] = field(default_factory=lambda: {name: [] for name in PROBLEMS})
    warnings: dict[str, list[Finding]] = field(default_factory=lambda: {"truncated completions": []})
    length_bias: LengthBias | None = None
    judged: JudgedAnswers | None = None  # where there are judgments
    ratings: RatingAgreement | None = None  # where ratings of the same answers were given
    shown: list[list[tuple[str, str]]] = field(default_factory=list)  # (text, "prompt" | "trained" | "cut")

    @property
    def wrong(self) -> bool:
        """Whether any problem was found: the command then ends with exit code 1. Warnings do not count."""
        return any(self.problems.values())


def check(
    path: Any,
    *,
    format: str = "auto",
    split: str = "train",
    eval_path: Any = None,
    eval_split: str = "test",
    ratings_path: Any = None,
    satisfied_from: float | None = None,
    tokenizer: Any = None,
    max_prompt_length: int = 512,
    max_completion_length: int = 512,
    template: str = "chat",
    shown: int = 1,
) -> CheckReport:
    """Read the data as a run would and look for what makes training fail, mislead or measure the wrong thing.

    Args:
        path, format, split: as for `load_examples`.
        eval_path, eval_split: a held-out set; training prompts that are in it, too, are a problem.
        ratings_path: ratings of the same answers (read with `split`), to compare the preferences with.
        satisfied_from: the score from which an answer that was judged without a verdict is satisfactory.
        tokenizer: lengths are in tokens and limits are checked; None: lengths are in words, without limits.
        max_prompt_length, max_completion_length: tokens, as in the run's `data` settings.
        template: "chat" or "raw".
        shown: of how many examples the trained tokens are shown (needs a tokenizer).

    Raises:
        UserError: as `load_examples` does.
    """
    if tokenizer is not None:
        check_tokenizer(tokenizer, template)
    loaded = _load(path, format, split)
    checker = _Checker(
        CheckReport(path=str(path), unit="words" if tokenizer is None else "tokens"),
        tokenizer,
        template,
        (max_prompt_length, max_completion_length),
        _prompt_places(load_examples(eval_path, split=eval_split)) if eval_path is not None else {},
        satisfied_from,
    )
    checker.read(loaded, shown)
    if ratings_path is not None:
        rated = load_examples(ratings_path, split=split).examples
        checker.report.ratings = rating_agreement(loaded.examples, rated)
    return checker.report


def _load(path: Any, format: str, split: str) -> Loaded:
    """Rows of a known format of which none can be used are something to report, and no reason to stop."""
    try:
        return load_examples(path, format=format, split=split)
    except NoUsableRows as error:
        if all(bad.kind == "unknown format" for bad in error.report.skipped):
            raise
        return Loaded(Examples.write([]), error.report)


def render(report: CheckReport, console: Console) -> None:
    """Print the report for people."""
    from alignment.data.check_rendering import render as print_report

    print_report(report, console)


class _Checker:
    """One pass over the examples. Holds only lengths and hashes, so the data may be larger than memory."""

    def __init__(
        self,
        report: CheckReport,
        tokenizer: Any,
        template: str,
        limits: tuple[int, int],
        held_out: dict[bytes, str],
        satisfied_from: float | None = None,
    ) -> None:
        self.report, self.tokenizer, self.template = report, tokenizer, template
        self.prompt_limit, self.completion_limit = limits
        self.held_out = held_out
        self.satisfied_from = satisfied_from
        self.judged: Counter[str] = Counter()
        self.lengths: dict[str, list[int]] = {
            "prompt": [],
            "chosen": [],
            "rejected": [],
            "other answers": [],
            "judgments": [],
        }
        self.differences: list[int] = []
        self.seen: dict[bytes, tuple[bytes, str]] = {}  # two answers to a prompt -> (which won, where)

    def read(self, loaded: Loaded, shown: int) -> None:
        report, counts = self.report, Counter[str]()
        report.rows_read, report.kept = loaded.report.rows_read, loaded.report.kept
        report.examples, report.formats = len(loaded.examples), dict(loaded.report.formats)
        for bad in loaded.report.skipped:
            name = _KINDS.get(bad.kind, "bad rows")
            report.problems[name].append(Finding(bad.file, bad.row, bad.reason))
        for example in loaded.examples:
            found, left_out = pairs([example])
            counts.update(left_out)
            report.pairs += len(found)
            if left_out.get("identical"):
                self._problem("identical answers", example, "two of its answers are the same text")
            records, about = judged([example], satisfied_from=self.satisfied_from)
            self.judged.update(
                {"records": len(records), "satisfactory": sum(record.satisfactory for record in records)}
            )
            self.judged.update(about)
            self._overlap(example)
            self._repeats(example, found)
            try:
                self._measure(example, found, records)
                if self.tokenizer is not None and example.responses and len(report.shown) < shown:
                    report.shown.append(self._tokens(example, found))
            except UserError as error:  # the chat template refuses this row's roles, say
                self._problem("bad rows", example, str(error))
        report.left_out = dict(counts)
        self._finish()

    def _problem(self, name: str, example: Example, note: str) -> None:
        self.report.problems[name].append(Finding(example.meta["source"], example.meta["row"], note))

    def _overlap(self, example: Example) -> None:
        place = self.held_out.get(prompt_key(example.prompt)) if self.held_out else None
        if place is not None:
            self._problem("prompts in the evaluation set", example, f"the same prompt is in {place}")

    def _repeats(self, example: Example, found: list[Pair]) -> None:
        """Pairs, and labelled answers, that were there before: with the same verdict, or with the opposite one."""
        labelled, _ = unpaired([example], from_pairs=False)
        self.report.labelled += len(labelled)
        compared = [(pair.prompt, [pair.chosen, pair.rejected]) for pair in found]
        verdicts = [(_digest([prompt, *sorted(map(_text, two))]), _digest(two[0])) for prompt, two in compared]
        verdicts += [(_digest([item.prompt, item.completion]), _digest(item.desirable)) for item in labelled]
        here = f"{example.meta['source']}:{example.meta['row']}"
        for key, won in verdicts:
            before = self.seen.setdefault(key, (won, here))
            if before[1] == here and before[0] == won:
                continue
            if before[0] == won:
                self._problem("duplicate pairs", example, f"the same as {before[1]}")
            else:
                self._problem("contradictory pairs", example, f"the opposite of {before[1]}")

    def _measure(self, example: Example, found: list[Pair], records: list[Judged]) -> None:
        """Lengths of the prompt, the answers and the judgments; against the limits where tokens are counted."""
        prompt = self._prompt_length(example.prompt)
        answers = {
            id(response.messages): self._answer_length(example, response.messages) for response in example.responses
        }
        self.lengths["prompt"].append(prompt)
        for pair in found:
            chosen, rejected = answers[id(pair.chosen)], answers[id(pair.rejected)]
            self.lengths["chosen"].append(chosen)
            self.lengths["rejected"].append(rejected)
            self.differences.append(chosen - rejected)
        if not found:
            self.lengths["other answers"] += answers.values()
        self.lengths["judgments"] += [self._text_length(record.judgment) for record in records if record.judgment]
        if self.tokenizer is None:
            return
        if prompt > self.prompt_limit:
            self._problem("prompts over the limit", example, f"{prompt} tokens, the limit is {self.prompt_limit}")
        longest = max(answers.values(), default=0)
        if longest > self.completion_limit:
            note = f"an answer of {longest} tokens is cut at {self.completion_limit}"
            found_at = Finding(example.meta["source"], example.meta["row"], note)
            self.report.warnings["truncated completions"].append(found_at)

    def _prompt_length(self, prompt: list[Message]) -> int:
        if self.tokenizer is None:
            return sum(len(turn["content"].split()) for turn in prompt)
        return len(encode_prompt(self.tokenizer, prompt, self.template))

    def _answer_length(self, example: Example, answer: list[Message]) -> int:
        if self.tokenizer is None:
            return sum(len(turn["content"].split()) for turn in answer)
        return len(encode_pair(self.tokenizer, example.prompt, answer, self.template)[1])

    def _text_length(self, text: str) -> int:
        return len(
            text.split() if self.tokenizer is None else self.tokenizer(text, add_special_tokens=False)["input_ids"]
        )

    def _tokens(self, example: Example, found: list[Pair]) -> list[tuple[str, str]]:
        """The example as the model sees it: (text, part) for every token, or for several that make one character."""
        answer = found[0].chosen if found else example.responses[0].messages
        prompt, completion = encode_pair(self.tokenizer, example.prompt, answer, self.template)
        kept, cut = completion[: self.completion_limit], completion[self.completion_limit :]
        parts = (("prompt", prompt), ("trained", kept), ("cut", cut))
        return [(text, part) for part, ids in parts for text, _ in token_texts(self.tokenizer, ids)]

    def _finish(self) -> None:
        limits = {"prompt": self.prompt_limit}
        for name, values in self.lengths.items():
            if values:
                limit = limits.get(name, self.completion_limit)
                unlimited = self.tokenizer is None or name == "judgments"  # the prompt that one goes into has the limit
                over = None if unlimited else sum(value > limit for value in values)
                mean, median = statistics.fmean(values), float(statistics.median(values))
                self.report.lengths[name] = Lengths(len(values), mean, median, max(values), over)
        self.report.length_bias = _length_bias(self.differences)
        counts = {name: count for name, count in self.judged.items() if count}
        records, satisfactory = counts.pop("records", 0), counts.pop("satisfactory", 0)
        if records or set(counts) - {"no judgment"}:
            self.report.judged = JudgedAnswers(records, satisfactory, counts)


def _length_bias(differences: list[int]) -> LengthBias | None:
    """None where no two answers differ in length."""
    from scipy.stats import binomtest

    longer = sum(difference > 0 for difference in differences)
    decided = sum(difference != 0 for difference in differences)
    if not decided:
        return None
    interval = binomtest(longer, decided).proportion_ci(0.95, method="exact")
    ci95 = (float(interval.low), float(interval.high))
    return LengthBias(decided, longer / decided, ci95, statistics.fmean(differences))


def _prompt_places(loaded: Loaded) -> dict[bytes, str]:
    places: dict[bytes, str] = {}
    for example in loaded.examples:
        name = Path(example.meta["source"]).name
        places.setdefault(prompt_key(example.prompt), f"{name}:{example.meta['row']}")
    return places


def prompt_key(prompt: list[Message]) -> bytes:
    """The same for prompts that differ in case, white space or system text."""
    said = [[turn["role"], " ".join(turn["content"].split()).casefold()] for turn in prompt if turn["role"] != "system"]
    return _digest(said)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(_text(value).encode("utf-8"), digest_size=12).digest()
