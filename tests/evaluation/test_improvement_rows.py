"""The rows of PIT in the end-of-run table: numbers, tones, and nothing where there is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from alignment.evaluation.improvement_rows import gap_rows, improved_rows
from alignment.evaluation.table import rows


def entry(before: float, after: float, ends: list[float], alone: list[float] | None = None) -> dict[str, Any]:
    found = {"before": before, "after": after, "difference": after - before, "ci95": ends, "pairs": 40, "answers": 40}
    return found | ({"after_ci95": alone} if alone else {})


def test_a_gap_model() -> None:
    summary = {
        "gaps": {
            "wl > ww": entry(0.5, 0.9, [0.3, 0.5], [0.8, 0.95]),
            "ll > lw": entry(0.5, 0.45, [-0.1, 0.0], [0.3, 0.6]),
            "wl > lw": entry(0.5, 0.2, [-0.5, -0.1], [0.1, 0.4]),
            "all five": entry(0.04, 0.4, [0.2, 0.5], [0.3, 0.49]),
            "|ww - ll|": entry(0.5, 2.0, [1.0, 2.0]),
        }
    }
    found = {row.key: row for row in gap_rows(summary)}
    assert list(found) == ["wl > ww", "wl > lw", "ll > lw", "all five", "|ww - ll|"]  # the loss's order
    row = found["wl > ww"]
    assert (row.before, row.after, row.difference, row.interval) == ("50.0 %", "90.0 %", "+40 %", "[+30 %, +50 %]")
    assert [found[key].tone for key in ("wl > ww", "ll > lw", "wl > lw", "all five")] == [
        "good",
        "plain",
        "bad",
        "plain",
    ]
    assert "80 % to 95 % of pairs" in row.reading and "w the preferred answer" in row.reading
    assert (found["|ww - ll|"].after, found["|ww - ll|"].interval) == ("2.00", "[+1.00, +2.00]")


@pytest.mark.parametrize(("ends", "tone"), [([0.2, 0.6], "good"), ([-0.2, 0.3], "plain"), ([-0.6, -0.1], "bad")])
def test_an_improver(ends: list[float], tone: str) -> None:
    summary = {"improved": {"chosen": {"score": entry(5.0, 6.0, ends), "won": entry(-0.1, 0.25, [0.1, 0.6], ends)}}}
    score, won = improved_rows(summary)
    assert (score.label, score.before, score.after, score.difference) == (
        "chosen answers, improved",
        "5.00",
        "6.00",
        "+1.00",
    )
    assert (won.before, won.after, won.difference, won.interval) == ("-10 %", "+25 %", "+35 %", "[+10 %, +60 %]")
    assert score.tone == won.tone == tone and "40 held-out chosen answers" in score.reading
    assert [row.key for row in rows(summary)] == ["improved chosen", "won chosen"]


def test_too_few_answers_have_no_interval_and_other_runs_no_rows() -> None:
    one = {"before": 1.0, "after": 2.0, "difference": 1.0, "answers": 1}
    found = improved_rows({"improved": {"rejected": {"score": one, "won": one}}})
    assert [row.interval for row in found] == ["", ""] and {row.tone for row in found} == {"plain"}
    assert gap_rows({}) == improved_rows({}) == [] and gap_rows({"gaps": {"wl > ww": {"pairs": 0}}}) == []
