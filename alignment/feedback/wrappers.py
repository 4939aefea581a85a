"""Feedback around feedback: sums, both orders, a simulated annotator's noise, ties, and verdicts kept on disk.

What they draw at random they draw by the content of a row: the same row gets the same draw in any cut of the rows, in
any order and on any process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.data.example import Judgment, Message
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.adapters import Function, as_feedback, as_judge, as_reward, inside, label
from alignment.feedback.protocols import Context, Judge, Prompts, Reward
from alignment.storage import ContentStore

METHODS = ("score", "prefer", "review")
KEPT_AT_ONCE = 512  # rows that are asked, and then written to disk, together


@dataclass
class Sum(Reward):
    """A weighted sum of rewards; `parts` are its terms, weights multiplied in.

    A NaN in a term makes the sum NaN. A term of weight 0 is not asked: its part is 0. A judge or critic counts as a
    reward by `as_reward`.
    """

    of: list[Any]
    weights: list[float] | None = None  # None: 1 each

    def __post_init__(self) -> None:
        self.of = [as_reward(term) for term in members(self)]
        if self.weights is not None:
            checks.numbers(self, "weights", len(self.of))

    def parts(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> dict[str, list[float]]:
        """Name of the term -> one value a completion; a second term of one kind is named kind_2."""
        found: dict[str, list[float]] = {}
        seen: Counter[str] = Counter()
        for term, weight in zip(self.of, self.weights or [1.0] * len(self.of), strict=True):
            name = label(term)
            seen[name] += 1
            scores = term.score(prompts, completions, context) if weight else [0.0] * len(completions)
            found[f"{name}_{seen[name]}" if seen[name] > 1 else name] = [weight * score for score in scores]
        return found

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """One sum for each completion."""
        return [sum(row) for row in zip(*self.parts(prompts, completions, context).values(), strict=True)]


def members(owner: Any) -> list[Any]:
    """The feedback objects of the field `of`, which must be a list of one or more."""
    if not isinstance(owner.of, (list, tuple)) or not owner.of:
        raise checks.WrongSetting(owner, "of", "a list of feedback is needed, such as [{name: length}]")
    return [as_feedback(one) for one in owner.of]


@dataclass
class BothOrders(Judge):
    """The mean of P(a ≻ b) and 1 - P(b ≻ a), so that no place is favoured; NaN where either is.

    One call of the inner judge with 2n rows: n as given, then n swapped. `counts["orders disagree"]`: pairs in which
    the two orders name different winners.
    """

    of: Any
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.of = as_judge(self.of)

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second), one for each pair."""
        orders = in_both_orders(self.of, prompts, first, second, context)
        self.counts["orders disagree"] += sum((a - 0.5) * (b - 0.5) < 0 for a, b in orders)
        return [(a + b) / 2 for a, b in orders]


def in_both_orders(
    judge: Judge, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
) -> list[tuple[float, float]]:
    """For each pair (P(first ≻ second) as given, 1 - P(second ≻ first) from the swapped order), in one call."""
    n = len(first)
    twice = None if context is None else [*context, *context]
    found = judge.prefer([*prompts, *prompts], [*first, *second], [*second, *first], twice)
    return [(a, 1.0 - b) for a, b in zip(found[:n], found[n:], strict=True)]


@dataclass
class Noise(Judge):
    """A judge that errs: with probability 2 · rate its verdict is a fair coin's, so that a share `rate` is wrong.

    The simulated annotators of AlpacaFarm (2305.14387) with rate 0.25. Whether a pair gets the coin is decided before
    the call, and the inner judge is not asked for it. The draw depends on seed, prompt and the two texts, not on
    their order: the coin names the text that wins, and two equal texts tie.
    """

    of: Any
    rate: float = 0.25
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.of = as_judge(self.of)
        checks.number(self, "rate", 0, 0.5)
        checks.number(self, "seed", whole=True)

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second), one for each pair; 0 or 1 (or 0.5 for equal texts) where the coin decided."""
        draws = [draw(self.seed, *row) for row in zip(prompts, first, second, strict=True)]
        asked = [row for row, (chance, _) in enumerate(draws) if chance >= 2 * self.rate]
        self.counts["coin instead of a verdict"] += len(draws) - len(asked)
        verdicts = dict(zip(asked, ask(self.of, asked, prompts, first, second, context), strict=True))
        coins = [_coin(chance, a, b) for (_, chance), a, b in zip(draws, first, second, strict=True)]
        return [verdicts.get(row, coin) for row, coin in enumerate(coins)]


def _coin(chance: float, first: str, second: str) -> float:
    """The verdict of a coin that picks the smaller text where chance < 0.5."""
    if first == second:
        return 0.5
    return float((first < second) == (chance < 0.5))


def draw(seed: int | str, prompt: list[Message], first: str, second: str) -> tuple[float, float]:
    """Two independent uniform numbers in [0, 1), the same for the pair in either order."""
    content = json.dumps([seed, prompt, sorted([first, second])], sort_keys=True)
    digest = hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:], "big") / 2**64


def ask(
    judge: Judge, rows: Sequence[int], prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context
) -> list[float]:
    """The judge's verdicts on some of the rows, in one call (none where there is no row)."""
    if not rows:
        return []
    chosen = None if context is None else [context[row] for row in rows]
    return judge.prefer([prompts[r] for r in rows], [first[r] for r in rows], [second[r] for r in rows], chosen)


@dataclass
class Ties(Judge):
    """A judge whose near-ties are ties: where |P - 1/2| < band, the verdict is 0.5, or NaN with verdict=none."""

    of: Any
    band: float = 0.05
    verdict: str = "tie"  # tie: 0.5 | none: no verdict
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.of = as_judge(self.of)
        checks.number(self, "band", 0, 0.5)
        checks.choice(self, "verdict", ("tie", "none"))

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second), one for each pair."""
        found = self.of.prefer(prompts, first, second, context)
        near = [abs(p - 0.5) < self.band for p in found]
        self.counts["near-ties"] += sum(near)
        instead = 0.5 if self.verdict == "tie" else math.nan
        return [instead if close else p for p, close in zip(found, near, strict=True)]


@dataclass
class Cached:
    """Any feedback, asked once for each row: what it said is kept on disk by content.

    A key holds the settings of the inner feedback (`settings_of`), the method asked, and the row's prompt, texts and
    context. "No verdict" is not kept, and is asked again. What a function of one's own calls, or a model's weights
    that changed in place, is not in the key: a new `version` starts afresh. Offers the methods that the inner
    feedback has.
    """

    of: Any
    folder: str | None = None  # None: the toolkit's cache folder
    version: str = ""
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        if any(getattr(part, "rows_together", False) for part in inside(as_feedback(self.of))):
            raise UserError("cached: mean_win looks at all rows of a call together; put cached around its judge")
        if not isinstance(self.version, str):
            self.version = str(self.version)
        if self.folder is None:
            from alignment.models.loading import cache_folder  # imports torch

            folder = cache_folder()
        else:
            checks.text(self, "folder")
            folder = Path(self.folder).expanduser()
        self._store = ContentStore(folder / "feedback.sqlite3", "feedback")
        offer(self, self.of)

    def _score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        return self._found("score", [prompts, completions], context, math.isnan, math.nan)

    def _prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        return self._found("prefer", [prompts, first, second], context, math.isnan, math.nan)

    def _review(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[Judgment]:
        found = self._found("review", [prompts, completions], context, _says_nothing, None)
        return [Judgment(**one) if isinstance(one, dict) else one for one in found]

    def _found(
        self, method: str, columns: list[Sequence[Any]], context: Context, empty: Callable[[Any], bool], nothing: Any
    ) -> list[Any]:
        """What is kept for each row, and the inner feedback's word on the others, asked in one call."""
        mark = json.dumps([method, self.version, settings_of(self.of)], sort_keys=True)
        known = [None] * len(columns[0]) if context is None else list(context)
        rows = zip(*columns, known, strict=True)
        keys = [_digest(mark, row) for row in rows]
        found = self._store.get(keys)
        new = {
            key: row for row, key in reversed(list(enumerate(keys))) if found[row] is None
        }  # equal rows are asked once
        self.counts["cached"] += len(keys) - sum(value is None for value in found)
        asked = sorted(new.values())
        answers: dict[int, Any] = {}
        for start in range(0, len(asked), KEPT_AT_ONCE):  # what was asked before a crash is not asked again
            piece = asked[start : start + KEPT_AT_ONCE]
            chosen = [[column[row] for row in piece] for column in columns]
            said = getattr(self.of, method)(*chosen, None if context is None else [context[row] for row in piece])
            answers.update(zip(piece, said, strict=True))
            self._store.put({keys[row]: _plain(answers[row]) for row in piece if not empty(answers[row])})
        found = [answers[new[key]] if key in new else value for key, value in zip(keys, found, strict=True)]
        return [nothing if value is None else value for value in found]


def offer(wrapper: Any, inner: Any) -> None:
    """Give `wrapper` those of the three methods that `inner` has, from its _score, _prefer and _review."""
    for method in METHODS:
        if hasattr(inner, method):
            setattr(wrapper, method, getattr(wrapper, f"_{method}"))


def _says_nothing(review: Judgment) -> bool:
    return review.text is None and review.satisfactory is None


def _plain(value: Any) -> Any:
    return vars(value) if isinstance(value, Judgment) else value


def _digest(mark: str, row: Any) -> bytes:
    content = json.dumps([mark, row], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=16).digest()


def settings_of(feedback: Any) -> Any:
    """All that a verdict of `feedback` depends on besides the row, as plain JSON: its class and settings, and theirs.

    A class of one's own is there with its source text, a function too. An object may say it itself, by a method
    `identity()`.

    Raises:
        UserError: a setting that has no plain form.
    """
    if hasattr(feedback, "identity"):
        return [type(feedback).__qualname__, feedback.identity()]
    if isinstance(feedback, Function):
        return ["function", _source(feedback.of)]
    own = type(feedback)
    name = f"{own.__module__}.{own.__qualname__}"
    source = None if name.startswith("alignment.") else _source(own)
    names = [f.name for f in dataclasses.fields(feedback) if f.init] if dataclasses.is_dataclass(feedback) else None
    values = {key: getattr(feedback, key) for key in names} if names is not None else vars(feedback)
    return [name, source, {key: _setting(value, f"{own.__name__}.{key}") for key, value in values.items()}]


def _setting(value: Any, where: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_setting(item, where) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _setting(item, where) for key, item in value.items()}
    if value is None or isinstance(value, (str, int, float)):
        return value
    if any(hasattr(value, method) for method in METHODS):
        return settings_of(value)
    raise UserError(
        f"cached: {where} is a {type(value).__name__}, which no key can hold; give the class a method identity()"
    )


def _source(thing: Any) -> str:
    try:
        return f"{thing.__qualname__}\n{inspect.getsource(thing)}"
    except (OSError, TypeError, AttributeError) as error:
        raise UserError(f"cached: the source of {thing!r} cannot be read, so no key can name it") from error
