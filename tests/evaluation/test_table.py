from __future__ import annotations

from typing import Any

import pytest

from alignment.evaluation.row import Row
from alignment.evaluation.table import command, dotted, flat, rows, title

from .fake_run import summary


def row(key: str, **overrides: Any) -> Row:
    return {row.key: row for row in rows({**summary(0, 48), **overrides})}[key]


def test_every_number_of_a_full_summary_has_a_row() -> None:
    assert [row.key for row in rows(summary(0, 48))] == [
        "score",
        "length",
        "fluency",
        "accuracy",
        "margin",
        "kl",
        "steps",
        "seconds",
        "tokens_per_second",
        "peak_memory_mb",
    ]
    assert title(summary(3, 48)) == "dpo on smollm2-135m, seed 3"


@pytest.mark.parametrize(
    ("bounds", "words", "tone"),
    [
        ([0.3, 0.8], "excludes zero: the score rose", "good"),
        ([-0.8, -0.3], "excludes zero: the score fell", "bad"),
        ([-0.3, 0.8], "includes zero", "plain"),
        ([0.0, 0.8], "includes zero", "plain"),
        (None, "no interval is defined", "plain"),
        ([None, None], "no interval is defined", "plain"),
    ],
)
def test_the_reading_of_the_score_follows_its_interval(bounds: Any, words: str, tone: str) -> None:
    score = {"name": "s", "before": 0.0, "after": 0.5, "difference": 0.5, "ci95": bounds, "prompts": 64}
    found = row("score", score=score)
    assert words in found.reading
    assert "64 held-out prompts" in found.reading
    assert found.tone == tone


@pytest.mark.parametrize(
    ("after", "words", "tone"),
    [
        (-1.49, "they read about as before", "good"),
        (-1.51, "answers drifted from good English", "bad"),
        (-0.9, "they read about as before", "good"),
        (-0.3, "repetition", "plain"),
    ],
)
def test_fluency_is_flagged_when_it_falls_by_more_than_half_a_nat(after: float, words: str, tone: str) -> None:
    found = row("fluency", fluency={"before": -1.0, "after": after})
    assert words in found.reading
    assert found.tone == tone


@pytest.mark.parametrize(
    ("accuracy", "n", "tone"), [(0.71, 100, "good"), (0.55, 100, "plain"), (0.3, 100, "bad"), (0.71, 4, "plain")]
)
def test_accuracy_is_compared_with_a_coin(accuracy: float, n: int, tone: str) -> None:
    assert row("accuracy", pairs={"accuracy": accuracy, "margin": 0.1, "n": n}).tone == tone


def test_length_says_how_much_it_changed() -> None:
    assert "20 % shorter" in row("length", length={"before": 50, "after": 40}).reading
    assert "20 % longer" in row("length", length={"before": 50, "after": 60}).reading
    assert "kept their length" in row("length", length={"before": 50, "after": 50}).reading
    assert row("length", length={"before": 0, "after": 3}).reading == ""


@pytest.mark.parametrize("nothing", [None, {}, [], "x", {"before": None, "after": float("nan")}])
def test_what_a_summary_lacks_has_no_row(nothing: Any) -> None:
    bare = dict.fromkeys(("score", "length", "fluency", "pairs", "kl"), nothing)
    assert [row.key for row in rows({**bare, "steps": 3})] == ["steps"]
    assert rows({}) == []
    assert title({}) == "run on a model"


def test_nested_values_become_pairs() -> None:
    assert list(flat({"train": {"kept_rows": 1200, "why": "x"}, "n": 2})) == [
        ("train: kept rows", "1,200"),
        ("train: why", "x"),
        ("n", "2"),
    ]
    assert dotted({"a": {"b": None, "c": True}, "d": 4e-5}) == [("a.b", "null"), ("a.c", "true"), ("d", "4e-05")]


def test_the_command_is_the_recorded_one() -> None:
    assert command({"overrides": ["recipe=dpo", "data.path=my file.jsonl", "output_dir=/tmp/x"]}) == (
        "accelerate launch train.py recipe=dpo 'data.path=my file.jsonl'"
    )
    assert command({"recipe": "dpo", "seed": 2}) == "accelerate launch train.py recipe=dpo seed=2"


@pytest.mark.parametrize(
    ("ends", "words"),
    [([0.3, 0.8], "rose with it"), ([-0.8, -0.3], "being played"), ([-0.1, 0.2], "not show the same")],
)
def test_a_feedback_that_rose_is_held_against_the_score(ends: Any, words: str) -> None:
    score = {"name": "s", "after": 1.0, "ci95": ends}
    rose = {"name": "reward_model", "before": -1.0, "after": 1.0, "difference": 2.0, "ci95": [1.5, 2.5]}
    found = row("feedback", feedback=rose, score=score)
    assert (found.before, found.after, found.difference, found.interval) == ("-1.00", "1.00", "+2.00", "[+1.50, +2.50]")
    assert words in found.reading
    judged = row(
        "feedback",
        feedback={"name": "judge", "wins": 0.8, "ci95": [0.7, 0.9]},
        score=score,
    )
    assert (judged.after, judged.interval) == ("80 %", "[70 %, 90 %]")
    assert words in judged.reading


def test_a_feedback_that_failed_on_held_out_answers_says_so() -> None:
    assert "KeyError: 'x'" in row("feedback", feedback={"name": "r", "failed": "KeyError: 'x'"}).reading


def test_the_share_that_satisfies_a_critic_has_a_row_for_each_iteration() -> None:
    entry = {"name": "plain_critic", "prompts": 40, "before": 0.25, "after": 0.5, "difference": 0.25}
    rounds = [
        {"iteration": 1, "prompts": 8, "answers": 16, "unsatisfactory": 12, "trained_on": 15, "steps": 4},
        {"iteration": 2, "satisfied": {**entry, "ci95": [0.1, 0.4]}, "kl": {"mean": 1.5}},
        "broken",
    ]
    rounds[0] |= {"satisfied": {**entry, "after": 0.125, "difference": -0.125, "ci95": [-0.2, -0.05]}}  # type: ignore[operator]
    found = row("satisfied", satisfied={**entry, "ci95": [-0.05, 0.55], "dropped": 3}, iterations=rounds)
    assert (found.label, found.before, found.after) == ("satisfies plain_critic", "25 %", "50 %")
    assert (found.difference, found.interval, found.tone) == ("+25 %", "[-5 %, +55 %]", "plain")
    assert "3 without a verdict are left out" in found.reading and "no change is told" in found.reading
    first, second = (row(f"iteration {number}", iterations=rounds) for number in (1, 2))
    assert (first.label, first.after, first.tone) == ("… after iteration 1", "12 %", "bad")
    assert "16 answers to 8 prompts, 12 of them not satisfactory; trained on 15 in 4 steps." in first.reading
    assert second.tone == "good" and "KL to the first model: 1.50 nats" in second.reading
    assert row("satisfied", satisfied=entry).interval == ""


def test_refined_answers_have_a_row() -> None:
    found = row("refined", refined={"asked": 9, "refined": 4, "unchanged": 2, "empty": 0, "cut": 3, "too_long": 0})
    assert found.after == "4 of 9" and found.reading.endswith("left out: 2 unchanged, 3 cut.")
