"""PRE (2401.15641): judges sit an exam, those who pass vote with weights of their marks, and votes become a ranking."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.adapters import as_judge
from alignment.feedback.panels import VOTES, Ensemble, vote
from alignment.feedback.protocols import Context, Judge, Prompts
from alignment.feedback.wrappers import BothOrders, in_both_orders, members

SURE = 0.99  # log_odds takes a mark above it for this: a judge without a fault would outweigh all others together


class LabelledPair(NamedTuple):
    """A pair with the gold verdict: p_first is P(first ≻ second), 0.5 a tie."""

    prompt: list[Message]
    first: str
    second: str
    p_first: float


class Marks(NamedTuple):
    """Marks of one judge in [0, 1]."""

    accuracy: float  # share of its 2n verdicts (both orders) that name gold's winner, or gold's tie
    consistency: float  # share of the n pairs on which both orders say the same


def exam(judges: Sequence[Any], pairs: Sequence[LabelledPair], context: Context = None) -> list[Marks]:
    """The marks of each judge. A verdict counts as its vote: first, second or tie; "no verdict" is wrong.

    Args:
        judges: judges, or rewards and critics, which count as judges.
        pairs: labelled pairs; those without a gold verdict (NaN) are left out.

    Raises:
        UserError: no pair with a gold verdict.
    """
    kept = [row for row, pair in enumerate(pairs) if not math.isnan(pair.p_first)]
    if not kept:
        raise UserError("exam: no pair with a gold verdict")
    prompts, first, second, gold = zip(*(pairs[row] for row in kept), strict=True)
    right = [vote(p) for p in gold]
    chosen = None if context is None else [context[row] for row in kept]
    marks = []
    for judge in judges:
        orders = in_both_orders(as_judge(judge), prompts, first, second, chosen)
        votes = [(vote(a), vote(b)) for a, b in orders]
        correct = sum((a == g) + (b == g) for (a, b), g in zip(votes, right, strict=True))
        marks.append(Marks(correct / (2 * len(kept)), sum(a == b for a, b in votes) / len(kept)))
    return marks


WEIGHTINGS: dict[str, Callable[[float, float], float]] = {
    "uniform": lambda p, alpha: 1.0,
    "log_odds": lambda p, alpha: max(0.0, math.log(min(p, SURE) / (1.0 - min(p, SURE)))) if p > 0 else 0.0,
    "exp": lambda p, alpha: math.exp(alpha * p),
    "power": lambda p, alpha: p**alpha,
}


@dataclass
class PeerReview(Judge):
    """Judges that passed an exam, each asked in both orders, vote with weights of their marks.

    A member's mark is p = w_gold · accuracy + (1 - w_gold) · consistency. It passes with accuracy >= pass_accuracy
    and consistency >= pass_consistency. Its weight, before all are made to sum to 1: 1 (uniform), log(p / (1 - p))
    (log_odds; 0 for p <= 1/2, and p counts as at most 0.99), exp(alpha p) (exp) or p^alpha (power). `vote` as in
    `ensemble`.
    """

    of: list[Any]
    marks: list[Any]  # [accuracy, consistency] of each member, as `exam` finds them
    weighting: str = "log_odds"
    alpha: float = 1.0
    w_gold: float = 0.5
    pass_accuracy: float = 0.6
    pass_consistency: float = 0.6
    vote: str = "votes"
    weights: list[float] = field(init=False)  # of all members, 0 for those that failed
    counts: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        self.of = [as_judge(member) for member in members(self)]
        checks.choice(self, "weighting", WEIGHTINGS)
        checks.choice(self, "vote", VOTES)
        checks.number(self, "alpha", 0)
        for name in ("w_gold", "pass_accuracy", "pass_consistency"):
            checks.number(self, name, 0, 1)
        self._check_marks()
        raw = [self._weight(*mark) for mark in self.marks]
        if not sum(raw):
            raise checks.WrongSetting(self, "marks", "no member passed with a weight above 0; lower the pass marks")
        self.weights = [weight / sum(raw) for weight in raw]
        passed = [(BothOrders(judge), w) for judge, w in zip(self.of, self.weights, strict=True) if w > 0]
        self._panel = Ensemble([judge for judge, _ in passed], self.vote, [w for _, w in passed])

    def _check_marks(self) -> None:
        fits = isinstance(self.marks, (list, tuple)) and len(self.marks) == len(self.of)
        for mark in self.marks if fits else []:
            fits = fits and isinstance(mark, (list, tuple)) and len(mark) == 2
            fits = fits and all(isinstance(x, (int, float)) and 0 <= x <= 1 for x in mark)
        if not fits:
            raise checks.WrongSetting(self, "marks", f"{len(self.of)} of [accuracy, consistency] in [0, 1] are needed")

    def _weight(self, accuracy: float, consistency: float) -> float:
        if accuracy < self.pass_accuracy or consistency < self.pass_consistency:
            return 0.0
        mark = self.w_gold * accuracy + (1.0 - self.w_gold) * consistency
        return WEIGHTINGS[self.weighting](mark, self.alpha)

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second), one for each pair."""
        found = self._panel._prefer(prompts, first, second, context)
        self.counts = Counter(self._panel.counts)
        return found


Game = tuple[str, str, float]  # two players, and the outcome for the first: 1 won, 0.5 tie, 0 lost; NaN is left out


def elo(games: Iterable[Game], k: float = 16.0, initial: float = 1000.0) -> dict[str, float]:
    """Elo ratings after `games` in their order: R += k · (outcome - 1 / (1 + 10^((R_other - R) / 400))) for both.

    The order matters by up to a few k; `all_pairs` knows no order.
    """
    ratings: dict[str, float] = {}
    for first, second, outcome in games:
        a, b = ratings.setdefault(first, initial), ratings.setdefault(second, initial)
        if not math.isnan(outcome):
            change = k * (outcome - 1.0 / (1.0 + 10.0 ** ((b - a) / 400.0)))
            ratings[first], ratings[second] = a + change, b - change
    return ratings


def all_pairs(games: Iterable[Game]) -> dict[str, float]:
    """For each player, the mean over its opponents of its mean outcome against them: in [0, 1], NaN without a game."""
    against: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for first, second, outcome in games:
        for player, other, won in ((first, second, outcome), (second, first, 1.0 - outcome)):
            met = against[player]
            if not math.isnan(won):
                met[other].append(won)
    means = {player: [sum(won) / len(won) for won in met.values()] for player, met in against.items()}
    return {player: sum(values) / len(values) if values else math.nan for player, values in means.items()}
