"""Ensembles, pools and PRE's peer review, by hand."""

from __future__ import annotations

import math

import pytest

from alignment.errors import UserError
from alignment.feedback.panels import AnnotatorPool, Ensemble, standardised
from alignment.feedback.peer_review import LabelledPair, Marks, PeerReview, all_pairs, elo, exam
from alignment.feedback.protocols import Judge, Reward
from alignment.feedback.rules import Length
from tests.feedback.toys import PROMPT, Says, Table, prefer, same, score

NAN = math.nan
PAIR = ("a", "b")


def panel(*probabilities: float, **settings) -> Ensemble:
    return Ensemble([Table({PAIR: p}) for p in probabilities], **settings)


def test_an_ensemble_votes() -> None:
    assert same(prefer(panel(0.9, 0.6, 0.0), PAIR), [0.5])
    assert same(prefer(panel(0.9, 0.6, 0.0, vote="votes"), PAIR), [2 / 3])
    assert prefer(panel(0.9, 0.6, 0.0, vote="majority"), PAIR) == [1.0]
    assert prefer(panel(0.9, 0.2, vote="majority"), PAIR) == [0.5]
    assert prefer(panel(0.9, 0.5, 0.5, vote="majority"), PAIR) == [1.0]
    assert prefer(panel(0.9, 0.2, 0.1, vote="majority", weights=[3, 1, 1]), PAIR) == [1.0]
    assert same(prefer(panel(0.9, 0.2, weights=[3, 1]), PAIR), [(3 * 0.9 + 0.2) / 4])


def test_a_member_without_a_verdict_is_left_out_and_counted() -> None:
    judge = panel(0.9, NAN, 0.3, weights=[1, 5, 2])
    assert same(prefer(judge, PAIR, ("c", "d")), [(0.9 + 2 * 0.3) / 3, NAN])
    assert judge.counts == {"member without a verdict": 1 + 3, "no verdict": 1}


def test_an_ensemble_of_rewards_is_a_reward() -> None:
    members = [Says({"a": 1.0, "b": 3.0}), Says({"a": 10.0, "b": 30.0, "c": 20.0})]
    plain = Ensemble(members)
    assert isinstance(plain, Reward) and not isinstance(plain, Judge)
    assert same(score(plain, "a", "b", "c", "d"), [5.5, 16.5, 20.0, NAN])
    fitted = standardised(members, [PROMPT] * 3, ["a", "b", "c"])
    assert fitted["centres"] == [2.0, 20.0] and same(fitted["scales"], [1.0, math.sqrt(200 / 3)])
    wanted = [(-1 - 10 / math.sqrt(200 / 3)) / 2, (1 + 10 / math.sqrt(200 / 3)) / 2]
    assert same(score(Ensemble(members, **fitted), "a", "b"), wanted)
    assert standardised([Says({}), Says({"a": 2.0})], [PROMPT], ["a"]) == {"centres": [0.0, 2.0], "scales": [1.0, 1.0]}


def test_a_mix_of_rewards_and_judges_is_a_judge() -> None:
    mixed = Ensemble([Length(), Table({("a b", "a"): 0.0})], vote="majority", weights=[2, 1])
    assert isinstance(mixed, Judge) and not isinstance(mixed, Reward)
    assert prefer(mixed, ("a b", "a")) == [1.0]


def test_a_pool_draws_one_annotator_for_each_pair() -> None:
    pairs = [(f"{n}", f"{n} long") for n in range(3000)]
    tables = [Table(dict.fromkeys(pairs, p)) for p in (0.1, 0.5, 0.9)]
    pool = AnnotatorPool(tables, seed=1)
    found = prefer(pool, *pairs)
    assert sum(len(table.asked[0]) for table in tables) == 3000  # each pair once, each member in one call
    for number, p in enumerate((0.1, 0.5, 0.9)):
        assert abs(found.count(p) / 3000 - 1 / 3) < 4 * math.sqrt(2 / 9 / 3000)
        assert pool.counts[f"annotator {number + 1}"] == found.count(p)
    assert prefer(AnnotatorPool(tables, seed=2), *pairs) != found


GOLD = [LabelledPair(PROMPT, "a", "b", 1.0), LabelledPair(PROMPT, "c", "d", 0.0), LabelledPair(PROMPT, "e", "f", 0.5)]


def test_an_exam_by_hand() -> None:
    right = {("a", "b"): 0.9, ("b", "a"): 0.2, ("c", "d"): 0.3, ("d", "c"): 0.6, ("e", "f"): 0.5, ("f", "e"): 0.5}
    first = dict.fromkeys(right, 1.0)  # always the answer that comes first
    silent: dict = {}
    marks = exam([Table(right), Table(first), Table(silent)], [*GOLD, LabelledPair(PROMPT, "g", "h", NAN)])
    # "First" is right in one order of the two decided pairs: 2 of 6 verdicts; never the same in both orders.
    assert marks == [Marks(1.0, 1.0), Marks(2 / 6, 0.0), Marks(0.0, 0.0)]
    assert exam([Length()], [LabelledPair(PROMPT, "long one", "short", 1.0)]) == [Marks(1.0, 1.0)]
    with pytest.raises(UserError, match="no pair with a gold verdict"):
        exam([Table(right)], [])


def test_weights_of_peer_review_by_hand() -> None:
    marks = [[0.9, 0.7], [0.6, 0.8], [0.59, 1.0]]  # marks 0.8 and 0.7; the third fails
    judges = [Length(), Length(), Length()]

    def weights(**settings) -> list[float]:
        return PeerReview(judges, marks, **settings).weights

    assert same(weights(weighting="uniform"), [0.5, 0.5, 0.0])
    odds = [math.log(0.8 / 0.2), math.log(0.7 / 0.3)]
    assert same(weights(), [odds[0] / sum(odds), odds[1] / sum(odds), 0.0])
    exp = [math.exp(2 * 0.8), math.exp(2 * 0.7)]
    assert same(weights(weighting="exp", alpha=2), [exp[0] / sum(exp), exp[1] / sum(exp), 0.0])
    power = [0.8**3, 0.7**3]
    assert same(weights(weighting="power", alpha=3), [power[0] / sum(power), power[1] / sum(power), 0.0])
    assert same(weights(weighting="power", w_gold=1.0), [0.9 / 1.5, 0.6 / 1.5, 0.0])
    assert weights(pass_accuracy=0.5)[2] > 0 and weights(pass_consistency=0.75)[0] == 0
    assert same(
        PeerReview(judges, [[1, 1], [0.5, 0.5], [1, 1]], pass_accuracy=0, pass_consistency=0).weights, [0.5, 0, 0.5]
    )


def test_peer_review_asks_both_orders_and_weighs_the_votes() -> None:
    fair = Table({PAIR: 0.9, ("b", "a"): 0.1})
    swayed = Table({PAIR: 0.3, ("b", "a"): 0.9})  # both orders: (0.3 + 0.1) / 2
    failed = Table({})
    marks = [[0.9, 0.7], [0.6, 0.8], [0.1, 0.1]]
    judge = PeerReview([fair, swayed, failed], marks, weighting="power")
    assert same(prefer(judge, PAIR), [0.8 / 1.5])
    assert failed.asked == []
    assert prefer(PeerReview([fair, swayed, failed], marks, vote="majority"), PAIR) == [1.0]
    assert same(prefer(PeerReview([fair, swayed, failed], marks, weighting="uniform", vote="mean"), PAIR), [0.55])


def test_elo_by_hand() -> None:
    assert elo([("x", "y", 1.0)]) == {"x": 1008.0, "y": 992.0}
    expected = 1 / (1 + 10 ** ((992 - 1008) / 400))
    ratings = elo([("x", "y", 1.0), ("x", "y", 0.5), ("x", "z", NAN)])
    assert ratings["x"] == pytest.approx(1008 + 16 * (0.5 - expected))
    assert ratings["x"] + ratings["y"] == pytest.approx(2000) and ratings["z"] == 1000
    assert elo([("x", "y", 0.0)], k=32, initial=0) == {"x": -16.0, "y": 16.0}


def test_all_pairs_weighs_opponents_and_not_games() -> None:
    games = [("x", "y", 1.0), ("x", "y", 0.5), ("z", "x", 1.0), ("y", "z", NAN)]
    assert all_pairs(games) == {"x": (0.75 + 0.0) / 2, "y": 0.25, "z": 1.0}
    assert math.isnan(all_pairs([("x", "y", NAN)])["x"])
