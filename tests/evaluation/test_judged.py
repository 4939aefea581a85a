"""What a run did to held-out judged answers, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from alignment.batching.groups import Group, Unit
from alignment.data.views import Judged
from alignment.evaluation.judged import HeldOut, changes, measured
from alignment.evaluation.table import rows


def held_out(satisfactory: bool, wrong: tuple[int, int] | None = None) -> HeldOut:
    record = Judged("id", [{"role": "user", "content": "Why?"}], [{"role": "assistant", "content": "So."}], "No.",
                    satisfactory)  # fmt: skip
    return HeldOut(record, Unit("id", (Group((1,), ((2, 3, 4),)),)), wrong)


ANSWERS = [held_out(True), held_out(False, (1, 3)), held_out(False)]


def test_log_probs_by_kind_and_place() -> None:
    found = measured(
        ANSWERS,
        [
            ((-1.0, -2.0, -3.0),),
            ((-1.0, -4.0, -5.0, -2.0), (-1.0, -1.0, -2.5)),  # with the right answer behind it
            ((-6.0,),),
        ],
    )
    nan = math.nan
    expected = {
        "satisfactory": [-2.0, nan, nan],
        "unsatisfactory": [nan, -3.0, -6.0],
        "wrong": [nan, -4.5, nan],  # tokens 1 and 2 of four
        "right": [nan, -1.5, nan],
        "right_ahead": [nan, -4.5 + 12.0, nan],
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, nan_ok=True), name


def test_changes_are_paired_and_the_margin_is_between_kinds() -> None:
    nan = math.nan
    before = {
        "satisfactory": [-2.0, -4.0, nan, nan],
        "unsatisfactory": [nan, nan, -3.0, -5.0],
        "wrong": [nan, nan, -4.0, nan],
        "right": [nan, nan, -2.0, nan],
        "right_ahead": [nan, nan, -1.0, nan],
    }
    after = {
        "satisfactory": [-1.0, -3.0, nan, nan],
        "unsatisfactory": [nan, nan, -3.5, -5.5],
        "wrong": [nan, nan, -7.0, nan],
        "right": [nan, nan, -2.0, nan],
        "right_ahead": [nan, nan, 3.0, nan],
    }
    found = changes(before, after, ["a", "b", "a", "b"])
    assert found["satisfactory"]["difference"] == 1.0 and found["unsatisfactory"]["difference"] == -0.5
    assert found["wrong"] == {"answers": 1, "before": -4.0, "after": -7.0, "difference": -3.0}  # no interval of one
    assert (found["right_first"]["before"], found["right_first"]["after"]) == (0.0, 1.0)
    margin = found["margin"]
    assert (margin["before"], margin["after"], margin["difference"]) == (1.0, 2.5, 1.5)
    assert margin["ci95"] == pytest.approx([1.5, 1.5])  # both prompts changed alike
    built = {row.key: row for row in rows({"judged": found})}
    assert built["margin"].tone == "good" and built["margin"].difference == "+1.50"
    assert built["right_first"].after == "100 %" and "no change is told" in built["wrong"].reading


@pytest.mark.parametrize("kind", ["satisfactory", "unsatisfactory"])
def test_answers_of_one_kind_have_no_margin(kind: str) -> None:
    nothing: dict[str, Any] = {name: [math.nan, math.nan] for name in
                               ("satisfactory", "unsatisfactory", "wrong", "right", "right_ahead")}  # fmt: skip
    assert set(changes({**nothing, kind: [-1.0, -2.0]}, {**nothing, kind: [-1.0, -3.0]}, ["a", "b"])) == {kind}
