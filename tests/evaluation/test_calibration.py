"""Accuracy, calibration error and accuracy by length, by hand."""

from __future__ import annotations

import math

import pytest

from alignment.evaluation.calibration import by_length, calibration, right


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_right_counts_soft_labels_and_ties() -> None:
    assert right([2.0, -1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.8]).tolist() == pytest.approx([1.0, 0.0, 0.5, 0.8])


def test_calibration_error_by_hand() -> None:
    # Five bins of width 0.1. Confidences 0.55 (right), 0.55 (wrong: logit -), 0.93 (right), 0.97 (right).
    found = calibration([logit(0.55), -logit(0.55), logit(0.93), logit(0.97)], [1.0] * 4, bins=5)
    assert [(entry["n"], entry["accuracy"]) for entry in found["bins"]] == [(2, 0.5), (2, 1.0)]
    assert [entry["confidence"] for entry in found["bins"]] == pytest.approx([0.55, 0.95])
    assert found["ece"] == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)
    assert math.isnan(calibration([], [])["ece"])


def test_certain_verdicts_fall_in_the_last_bin() -> None:
    found = calibration([50.0, -800.0], [1.0, 1.0])
    assert len(found["bins"]) == 1 and found["bins"][0]["confidence"] == pytest.approx(1.0)
    assert found["ece"] == pytest.approx(0.5)


def test_a_judge_that_goes_by_length_shows_in_the_quarters() -> None:
    longer = [number - 20 for number in range(40)]  # -20 … 19
    found = by_length([float(value) + 0.5 for value in longer], [1.0] * 40, longer)
    assert [(q["from"], q["to"], q["n"]) for q in found] == [(-20, -11, 10), (-10, -1, 10), (0, 9, 10), (10, 19, 10)]
    assert [q["accuracy"] for q in found] == [0.0, 0.0, 1.0, 1.0]
    assert len(by_length([1.0, -1.0, 2.0], [1.0] * 3, [3, 1, 2])) == 2
