"""Ratings against rankings: do two ways of asking about the same answers agree? (2308.15812, section 4)"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from alignment.data.example import Example, Response, content_id
from alignment.errors import UserError

VERDICTS = ("first", "second", "equal")


@dataclass(frozen=True)
class RatingAgreement:
    """The verdicts of the same pairs from the ratings of their two answers, and from the rankings."""

    table: dict[str, dict[str, int]]  # verdict of the ratings -> verdict of the rankings -> pairs
    pairs: int  # ranked pairs whose answers are both rated
    unrated: int  # ranked pairs of which an answer has no rating: left out
    consistency: float  # share of the pairs with the same verdict, ties included
    disagreement: float  # 1 - consistency
    ci95: tuple[float, float]  # Wilson interval of the disagreement


def rating_agreement(ranked: Iterable[Example], rated: Iterable[Example]) -> RatingAgreement:
    """Compare each preference of `ranked` with the verdict that the ratings in `rated` give for the same two answers.

    An answer is the same where its prompt and its text are; several ratings of it are averaged. The higher rating wins,
    equal ones tie. Preferences count as first, second or equal as p_first is above, below or at 0.5.

    Raises:
        UserError: no preference whose two answers are rated.
    """
    from alignment.evaluation.statistics import share_interval

    ratings: defaultdict[str, list[float]] = defaultdict(list)
    for example in rated:
        for response in example.responses:
            if response.score is not None and not math.isnan(response.score):
                ratings[_key(example, response)].append(response.score)
    table = {ours: dict.fromkeys(VERDICTS, 0) for ours in VERDICTS}
    unrated = 0
    for example in ranked:
        for preference in example.preferences:
            found = [ratings.get(_key(example, example.responses[i])) for i in (preference.first, preference.second)]
            if math.isnan(preference.p_first):
                continue
            if not (found[0] and found[1]):
                unrated += 1
                continue
            difference = statistics.fmean(found[0]) - statistics.fmean(found[1])
            table[_verdict(difference)][_verdict(preference.p_first - 0.5)] += 1
    pairs = sum(sum(row.values()) for row in table.values())
    if not pairs:
        raise UserError("--ratings: no two ranked answers are both rated there (the same prompt and the same text)")
    matches = sum(table[verdict][verdict] for verdict in VERDICTS)
    share = (pairs - matches) / pairs
    return RatingAgreement(table, pairs, unrated, matches / pairs, share, share_interval(share, pairs))


def _key(example: Example, response: Response) -> str:
    return content_id(Example(example.prompt, [response]))


def _verdict(difference: float) -> str:
    return "first" if difference > 0 else "second" if difference < 0 else "equal"
