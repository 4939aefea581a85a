"""Sums, both orders, noise, ties and the cache: by hand, and row by row the same in any cut and order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.feedback.adapters import (
    BradleyTerry,
    Function,
    MeanWin,
    Satisfied,
    as_judge,
    as_reward,
    close,
    counts_of,
)
from alignment.feedback.panels import AnnotatorPool, Ensemble
from alignment.feedback.peer_review import PeerReview
from alignment.feedback.rules import Length, PlainWords, Repetition
from alignment.feedback.wrappers import BothOrders, Cached, Noise, Sum, Ties, settings_of
from tests.feedback.toys import PROMPT, Says, Table, Writes, prefer, same, score

NAN = math.nan


def test_sum_is_weighted_and_shows_its_parts() -> None:
    total = Sum([Says({"a": 1.0, "b": 2.0}), Says({"a": 10.0, "b": 20.0}), Length()], [1.0, -0.5, 2.0])
    assert score(total, "a", "b") == [1 - 5 + 2, 2 - 10 + 2]
    assert total.parts([PROMPT], ["b"]) == {"says": [2.0], "says_2": [-10.0], "length": [2.0]}
    assert score(Sum([Says({"a": 1.0}), Length()]), "a") == [2.0]  # weights of 1


def test_nan_in_a_term_is_nan_unless_its_weight_is_0() -> None:
    silent = Says({})
    assert same(score(Sum([silent, Length()], [0.5, 1.0]), "a"), [NAN])
    silent.asked.clear()
    assert score(Sum([silent, Length()], [0.0, 1.0]), "a") == [1.0]
    assert silent.asked == []


def test_both_orders_is_the_mean_of_the_two_in_one_call() -> None:
    table = Table({("a", "b"): 0.9, ("b", "a"): 0.4, ("c", "d"): 0.9, ("e", "f"): 0.8, ("f", "e"): 0.9})
    judge = BothOrders(table)
    found = prefer(judge, ("a", "b"), ("c", "d"), ("e", "f"))
    assert same(found, [(0.9 + 0.6) / 2, NAN, (0.8 + 0.1) / 2])  # (d, c) has no verdict
    assert table.asked == [[("a", "b"), ("c", "d"), ("e", "f"), ("b", "a"), ("d", "c"), ("f", "e")]]
    assert judge.counts == {"orders disagree": 1}
    assert same(prefer(judge, ("b", "a"), ("f", "e")), [1 - 0.75, 1 - 0.45])


def test_ties_within_the_band() -> None:
    table = Table({("a", "b"): 0.54, ("a", "c"): 0.55, ("a", "d"): 0.47, ("a", "e"): 0.1})
    pairs = [("a", x) for x in "bcdez"]
    judge = Ties(table, band=0.05)
    assert same(prefer(judge, *pairs), [0.5, 0.55, 0.5, 0.1, NAN])
    assert judge.counts == {"near-ties": 2}
    assert same(prefer(Ties(table, band=0.05, verdict="none"), *pairs), [NAN, 0.55, NAN, 0.1, NAN])


def test_noise_flips_a_quarter_and_asks_for_half() -> None:
    pairs = [(f"{n} good", f"{n}") for n in range(4000)]
    table = Table(dict.fromkeys(pairs, 1.0))
    judge = Noise(table, rate=0.25, seed=3)
    found = prefer(judge, *pairs)
    assert set(found) == {0.0, 1.0}
    flipped = found.count(0.0) / 4000
    assert abs(flipped - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)  # four standard errors
    asked = len(table.asked[0])
    assert abs(asked / 4000 - 0.5) < 4 * math.sqrt(0.25 / 4000)
    assert judge.counts == {"coin instead of a verdict": 4000 - asked}
    assert found != prefer(Noise(table, rate=0.25, seed=4), *pairs)


def test_noise_is_the_same_label_in_either_order() -> None:
    pairs = [(f"{n} good", f"{n}") for n in range(50)]
    table = Table(dict.fromkeys(pairs, 0.9) | {pair[::-1]: 0.1 for pair in pairs})
    judge = Noise(table, rate=0.4)
    assert same([1 - p for p in prefer(judge, *[(b, a) for a, b in pairs])], prefer(judge, *pairs))
    assert prefer(Noise(table, rate=0.5), ("x", "x")) == [0.5]
    table.asked.clear()
    prefer(Noise(table, rate=0.5), *pairs)
    assert table.asked == []  # a judge of pure noise is never asked
    assert prefer(Noise(table, rate=0), *pairs) == [0.9] * 50


# The adapters.


def test_bradley_terry_and_mean_win_by_hand() -> None:
    judge = BradleyTerry(Says({"a": 3.0, "b": 1.0, "c": 1000.0}), temperature=2.0)
    assert same(prefer(judge, ("a", "b"), ("b", "c"), ("a", "z")), [1 / (1 + math.exp(-1)), 0.0, NAN])
    wins = MeanWin(Table({("a", "b"): 0.9, ("a", "c"): 0.6, ("b", "c"): NAN}))
    assert same(score(wins, "a", "b", "c"), [0.75, 0.1, 0.4])
    assert same(score(wins, "a"), [NAN])
    assert same(score(Satisfied(Writes()), "please", "no", ""), [1.0, 0.0, NAN])


def test_one_kind_seen_as_another() -> None:
    reward, judge, critic = Length(), Table({}), Writes()
    assert as_reward(reward) is reward and as_judge(judge) is judge
    assert isinstance(as_reward(judge), MeanWin) and isinstance(as_reward(critic), Satisfied)
    assert isinstance(as_judge(reward), BradleyTerry) and isinstance(as_judge(critic), BradleyTerry)
    with pytest.raises(UserError, match="int has none of the methods"):
        as_reward(3)
    with pytest.raises(UserError, match="Length writes no reviews"):
        Satisfied(Length())


def test_counts_and_close_reach_what_is_inside() -> None:
    closed = []

    class Closing(Table):
        def close(self) -> None:
            closed.append(self)

    inner = Closing({("a", "b"): 0.9, ("b", "a"): 0.8})
    judge = Ties(BothOrders(Ensemble([inner, Table({})])))
    assert same(prefer(judge, ("a", "b")), [0.55])
    assert counts_of(judge) == {"orders disagree": 1, "near-ties": 0, "member without a verdict": 2}
    close(judge)
    assert closed == [inner]


# The cache.


def test_each_row_is_asked_once(tmp_path: Path) -> None:
    inner = Says({"a": 1.5, "b": -0.25})
    cached = Cached(inner, str(tmp_path))
    assert same(score(cached, "a", "z", "b", "a"), [1.5, NAN, -0.25, 1.5])
    assert inner.asked == [["a", "z", "b"]]  # equal rows once
    again = Cached(Says({"a": 1.5, "b": -0.25}), str(tmp_path))
    assert same(score(again, "b", "a", "z"), [-0.25, 1.5, NAN])
    assert again.of.asked == [["z"]]  # "no verdict" is not kept
    assert again.counts == {"cached": 2}


def test_the_key_holds_settings_texts_context_and_method(tmp_path: Path) -> None:
    folder, rows = str(tmp_path), [PROMPT]

    def asked(inner: Any, method: str, *columns: list, **more: Any) -> int:
        before = len(inner.asked)
        getattr(Cached(inner, folder, **more), method)(*columns)
        return len(inner.asked) - before

    says, table, critic = Says({"a": 1.0}), Table({("a", "b"): 1.0}), Writes()
    other = [[{"role": "user", "content": "What?"}]]
    assert asked(says, "score", rows, ["a"]) == 1
    assert asked(says, "score", rows, ["a"]) == 0
    assert asked(says, "score", other, ["a"]) == 1
    assert asked(says, "score", rows, ["a"], [{"reference": "x"}]) == 1
    assert asked(says, "score", rows, ["a"], [{"reference": "x"}]) == 0
    assert asked(Says({"a": 1.0, "c": 0.0}), "score", rows, ["a"]) == 1  # other settings
    assert asked(says, "score", rows, ["a"], version="2") == 1
    assert asked(table, "prefer", rows, ["a"], ["b"]) == 1
    assert asked(table, "prefer", rows, ["a"], ["b"]) == 0
    assert asked(critic, "review", rows, ["please"]) == 1
    assert asked(critic, "review", rows, ["please"]) == 0
    kept = Cached(critic, folder).review(rows, ["please"])[0]
    assert (kept.text, kept.satisfactory, kept.annotator) == ("on please", True, "writes")


def test_settings_of_names_classes_and_what_is_inside() -> None:
    first = settings_of(Sum([Length("words", 20), PlainWords()], [1.0, 2.0]))
    assert first == settings_of(Sum([Length("words", 20), PlainWords()], [1.0, 2.0]))
    assert first != settings_of(Sum([Length("words", 21), PlainWords()], [1.0, 2.0]))
    assert settings_of(BothOrders(Length())) != settings_of(Ties(Length()))

    def one(prompt: list, text: str, context: dict) -> float:
        return 1.0

    def two(prompt: list, text: str, context: dict) -> float:
        return 2.0

    assert settings_of(Function(one)) != settings_of(Function(two))

    class Plain:
        def __init__(self, thing: Any) -> None:
            self.thing = thing

        def score(self, prompts: Any, completions: Any, context: Any = None) -> list[float]:
            return [0.0] * len(completions)

    assert settings_of(Plain(3)) != settings_of(Plain(4))
    with pytest.raises(UserError, match=r"Plain.thing is a object.*identity\(\)"):
        settings_of(Plain(object()))
    Plain.identity = lambda self: "said so"  # type: ignore[attr-defined]
    assert settings_of(Plain(object()))[1] == "said so"


def test_what_looks_at_rows_together_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="put cached around its judge"):
        Cached(Sum([MeanWin(Table({}))]), str(tmp_path))


def test_rows_asked_before_a_crash_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.feedback.wrappers.KEPT_AT_ONCE", 2)

    class Fails(Says):
        def score(self, prompts: Any, completions: Any, context: Any = None) -> list[float]:
            found = super().score(prompts, completions, context)
            if "c" in completions:
                raise KeyboardInterrupt
            return found

    with pytest.raises(KeyboardInterrupt):
        score(Cached(Fails(dict.fromkeys("abcd", 1.0)), str(tmp_path)), *"abcd")
    cached = Cached(Fails(dict.fromkeys("abcd", 1.0)), str(tmp_path))
    assert score(cached, "a", "b") == [1.0, 1.0] and cached.of.asked == []


# A row's word depends on the row alone.

COUNTING: dict[str, Callable[[str], Any]] = {
    "bradley_terry": lambda folder: BradleyTerry(Length("characters")),
    "both_orders": lambda folder: BothOrders(Length("characters")),
    "noise": lambda folder: Noise(Length("characters"), rate=0.3, seed=1),
    "ties": lambda folder: Ties(Length("characters"), band=0.2),
    "cached": lambda folder: Cached(Noise(Length("characters")), folder),
    "ensemble": lambda folder: Ensemble([Noise(Length()), Repetition(1), Says({"a": 1.0})], "majority"),
    "annotator_pool": lambda folder: AnnotatorPool([Length(), Repetition(1), Noise(Length())], seed=2),
    "peer_review": lambda folder: PeerReview([Noise(Length()), Repetition(1)], [[0.8, 0.9], [0.7, 0.7]]),
    "sum": lambda folder: as_judge(Sum([Length(), Repetition(1)], [1.0, 3.0])),
    "ensemble of rewards": lambda folder: as_judge(Ensemble([Length(), Repetition(1)], centres=[1, 0], scales=[2, 1])),
}
texts = st.text(alphabet="ab ", max_size=6)
rows_of_pairs = st.lists(st.tuples(st.sampled_from(["x", "y"]), texts, texts), min_size=1, max_size=12)


@pytest.mark.parametrize("kind", COUNTING)
@settings(deadline=None, max_examples=15)
@given(rows_of_pairs, st.randoms(use_true_random=False), st.integers(0, 12))
def test_any_cut_and_any_order_of_the_rows(
    kind: str, tmp_path_factory: pytest.TempPathFactory, rows: list, shuffle: random.Random, cut: int
) -> None:
    def ask(judge: Any, rows: list) -> list[float]:
        prompts = [[{"role": "user", "content": prompt}] for prompt, _, _ in rows]
        return judge.prefer(prompts, [a for _, a, _ in rows], [b for _, _, b in rows])

    make = COUNTING[kind]
    folder = str(tmp_path_factory.mktemp("cut"))
    whole = ask(make(folder), rows)
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    judge = make(str(tmp_path_factory.mktemp("cut")))
    pieces = [order[:cut], order[cut:]]
    found = [p for piece in pieces for p in ask(judge, [rows[i] for i in piece])]
    assert same(found, [whole[i] for i in order], within=0.0)
