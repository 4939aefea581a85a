"""Diversity by hand, against sacrebleu and against cosines one by one."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from alignment.errors import UserError
from alignment.evaluation.metrics.diversity import (
    across_inputs,
    distinct_n,
    ead,
    embedding_distance,
    equal_models,
    equal_sets,
    expectation_adjusted_distinct,
    nli_diversity,
    per_input,
    self_bleu,
    tokens,
)

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1, max_size=9).map(" ".join)
SETS = st.lists(WORDS, min_size=2, max_size=5)


def test_tokens() -> None:
    assert tokens("The end.\nThe 3.5 End, now...") == ["The", "end", "The", "35", "End,", "now"]
    assert tokens(" . \n") == []


def test_distinct_by_hand() -> None:
    texts = ["i am going", "i am going", "lets go i i"]
    # 10 words of which 5 are distinct; 7 pairs: (i am) (am going) twice each, (lets go) (go i) (i i)
    assert distinct_n(texts, 1) == 5 / 10
    assert distinct_n(texts, 2) == 5 / 7
    assert distinct_n(texts, 5) == 0.0
    assert distinct_n(["a b", "c d"], 2) == 1.0  # no pair (b, c)
    assert distinct_n([], 1) == 0.0


def test_ead_by_hand() -> None:
    texts = ["a b a", "b a"]
    # 5 words, 2 distinct, V = 4: 4 (1 - (3/4)^5) = 3.05078
    assert expectation_adjusted_distinct(texts, 4, 1) == pytest.approx(2 / (4 * (1 - 0.75**5)))
    # 3 pairs: ab, ba, ba
    assert expectation_adjusted_distinct(texts, 4, 2) == pytest.approx(2 / (4 * (1 - 0.75**3)))
    assert expectation_adjusted_distinct(texts, 1, 1) == 2.0  # of one word one distinct is expected
    orders = [2 / (4 * (1 - 0.75**5)), 2 / (4 * (1 - 0.75**3)), 1 / (4 * (1 - 0.75**1)), 0.0, 0.0]
    assert ead(texts, 4) == pytest.approx(sum(orders) / 5)
    # Far below the vocabulary the expected number is the number of draws.
    assert expectation_adjusted_distinct(texts, 10**12, 1) == pytest.approx(distinct_n(texts, 1))
    assert ead(["one word", ""], 50_257) == pytest.approx(2 / 5, rel=1e-4)
    with pytest.raises(ValueError, match="vocabulary"):
        expectation_adjusted_distinct(texts, 0, 1)


def test_uniform_draws_have_an_ead_of_1() -> None:
    rng = np.random.default_rng(0)
    for length in (20, 200, 2000):
        texts = [" ".join(f"w{word}" for word in rng.integers(0, 500, length)) for _ in range(4)]
        assert expectation_adjusted_distinct(texts, 500, 1) == pytest.approx(1.0, abs=0.06)
    assert distinct_n(texts, 1) < 0.07  # what it adjusts for


def by_sacrebleu(texts: list[str]) -> float:
    from sacrebleu import sentence_bleu

    scores = [sentence_bleu(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return sum(scores) / len(scores) / 100


@settings(max_examples=60, deadline=None)
@given(SETS)
def test_self_bleu_is_sacrebleus_of_each_against_the_rest(texts: list[str]) -> None:
    pytest.importorskip("sacrebleu")
    assert self_bleu(texts) == pytest.approx(by_sacrebleu(texts), abs=1e-12)


def test_self_bleu_of_prose() -> None:
    pytest.importorskip("sacrebleu")
    texts = [
        "The cat's on the mat, and it (the cat) sleeps.",
        "The cat is on the mat; it sleeps.",
        "",
        "A dog barked at 3.5 km/h — twice!  \n",
        "The cat is on the mat; it sleeps.",
    ]
    assert self_bleu(texts) == pytest.approx(by_sacrebleu(texts), abs=1e-12)
    assert self_bleu(["one and the same text"] * 3) == pytest.approx(1.0)
    assert self_bleu(["a b c d", "e f g h"]) == 0.0
    assert math.isnan(self_bleu(["alone"]))


def test_without_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(UserError, match=r"self-BLEU needs a package .*pip install \"alignment-toolkit\[feedback\]\""):
        self_bleu(["a", "b"])


def test_embedding_distance_is_1_minus_the_mean_cosine() -> None:
    vectors = np.random.default_rng(0).normal(size=(7, 4)) + 0.5
    distances = [cosine(a, b) for i, a in enumerate(vectors) for b in vectors[:i]]
    assert embedding_distance(vectors) == pytest.approx(np.mean(distances))
    assert embedding_distance(list(3 * vectors)) == pytest.approx(np.mean(distances))  # length does not matter
    assert embedding_distance(np.eye(3)) == pytest.approx(1.0)
    assert embedding_distance(np.ones((2, 3))) == pytest.approx(0.0)
    assert embedding_distance(np.array([[1.0], [-1.0]])) == pytest.approx(2.0)
    assert math.isnan(embedding_distance(np.ones((1, 3))))
    assert math.isnan(embedding_distance(np.array([[1.0, 0.0], [0.0, 0.0]])))


def test_nli_is_the_mean_over_both_orders() -> None:
    values = {("a", "b"): 1.0, ("b", "a"): 0.5, ("a", "c"): -1.0, ("c", "a"): 0.0, ("b", "c"): 0.0, ("c", "b"): 1.0}
    assert nli_diversity(["a", "b", "c"], lambda a, b: values[a, b]) == pytest.approx(1.5 / 6)
    assert math.isnan(nli_diversity(["a"], lambda a, b: 1.0))
    # More contradictions, more diverse: the sign that the published code has the other way round.
    assert nli_diversity(["a", "b"], lambda a, b: 1.0) > nli_diversity(["a", "b"], lambda a, b: -1.0)


def test_per_input_and_across_inputs() -> None:
    # The same two answers to every input: diverse for one input, not across them; and the other way round.
    same = [["red fox", "blue cow"]] * 3
    own = [["red fox"] * 2, ["blue cow"] * 2, ["old owl"] * 2]

    def measure(texts: object) -> float:
        return distinct_n(texts, 1)  # type: ignore[arg-type]

    assert per_input(same, measure) == [1.0, 1.0, 1.0] and across_inputs(same, measure) == [2 / 6, 2 / 6]
    assert per_input(own, measure) == [0.5, 0.5, 0.5] and across_inputs(own, measure) == [1.0, 1.0]
    vectors = np.random.default_rng(0).normal(size=(3, 4, 5))  # inputs, answers, dimensions
    assert per_input(list(vectors), embedding_distance) == pytest.approx([embedding_distance(rows) for rows in vectors])
    assert across_inputs(list(vectors), embedding_distance)[1] == pytest.approx(embedding_distance(vectors[:, 1]))


def test_sets_must_be_of_one_size() -> None:
    assert equal_sets([["a", "b"], ["c", "d"]]) == 2
    with pytest.raises(UserError, match=r"^input 3 has 1 answer and the first input 2: .*same number"):
        equal_sets([["a", "b"], ["c", "d"], ["e"], []])
    with pytest.raises(UserError, match=r"^<U\+202E>q has 3 answers"):
        equal_sets([["a"], ["b"] * 3], names=["p", "\u202eq"])
    for measure in (per_input, across_inputs):
        with pytest.raises(UserError, match="input 2"):
            measure([["a", "b"], ["c"]], len)
    for empty in ([], [[]]):
        with pytest.raises(UserError, match="there is none"):
            equal_sets(empty)


def test_models_must_have_as_many() -> None:
    two = [["a", "b"], ["c", "d"]]
    assert equal_models({"m": two, "n": two}) == (2, 2)
    with pytest.raises(UserError, match=r"^n has 1 inputs with 2 answers each and m 2 with 2"):
        equal_models({"m": two, "n": two[:1]})
    with pytest.raises(UserError, match="no model"):
        equal_models({})


@settings(max_examples=60, deadline=None)
@given(SETS, st.integers(1, 3))
def test_what_does_not_depend_on_order(texts: list[str], n: int) -> None:
    turned = texts[::-1]
    assert distinct_n(texts, n) == distinct_n(turned, n)
    assert 0 <= distinct_n(texts, n) <= 1
    # A copy of the set adds no n-gram.
    assert distinct_n(texts * 2, n) == pytest.approx(distinct_n(texts, n) / 2)
    assert expectation_adjusted_distinct(texts, 50_257, n) >= distinct_n(texts, n) * (1 - 1e-9)
