from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignment.errors import UserError
from alignment.evaluation.curves import logged, plot_curves, read_metrics, series, smooth

from .fake_run import make_run, metrics, write_lines


def colours(png: bytes) -> set[tuple[int, int, int]]:
    image = Image.open(io.BytesIO(png)).convert("RGB")
    return {tuple(colour) for colour in np.unique(np.asarray(image).reshape(-1, 3), axis=0).tolist()}


def test_rows_are_sorted_into_training_and_held_out(tmp_path: Path) -> None:
    rows = [
        {"step": 2, "loss": 1},
        {"step": 1, "loss": 3},
        {"step": 2, "eval_loss": 5},
        {"step": 2, "loss": 4},
        {"x": 1},
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    train, held_out = read_metrics(tmp_path)
    assert [(row["step"], row["loss"]) for row in train] == [(1, 3), (2, 4)]  # the later row of step 2 counts
    assert [row["eval_loss"] for row in held_out] == [5]


def test_values_that_are_not_finite_leave_no_point() -> None:
    nan = float("nan")
    steps, values = series([{"step": 1, "a": nan}, {"step": 2, "a": 3.0}, {"step": 3}, {"step": 4, "a": None}], "a")
    assert (steps.tolist(), values.tolist()) == ([2.0], [3.0])


def test_smoothing_by_hand_keeps_level_and_length() -> None:
    # Ten points: two neighbours on each side, cut off at the ends.
    values = np.array([0, 0, 10, 0, 0, 0, 0, 0, 0, 5], dtype=float)
    expected = [10 / 3, 10 / 4, 2, 2, 2, 0, 0, 1, 5 / 4, 5 / 3]
    assert smooth(values) == pytest.approx(expected)
    assert smooth(np.full(33, 2.5)) == pytest.approx(np.full(33, 2.5))


def test_a_full_run_is_drawn_whole_and_readable(tmp_path: Path) -> None:
    path = plot_curves(make_run(tmp_path / "run"))
    image = Image.open(path)
    assert path.name == "curves.png"
    assert image.width >= 1000
    found = colours(path.read_bytes())
    assert {(0x25, 0x63, 0xC9), (0xD9, 0x69, 0x1A)} <= found  # both lines of the rewards' panel
    assert not list((tmp_path / "run").glob(".*"))


def titles(folder: Path) -> list[str]:
    return [panel.title for panel in logged(*read_metrics(folder))]


def test_panels_follow_what_was_logged(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", metrics(random.Random(0), 20, 10))
    assert titles(tmp_path) == ["Loss", "Accuracy", "Margin", "Rewards", "Gradient norm"]
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 0.7, "reward": 1.0, "kl": 0.1, "length": 9.0}])
    assert titles(tmp_path) == ["Loss", "Reward of samples", "KL", "Length of samples"]  # an online run
    write_lines(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 0.7}])
    assert titles(tmp_path) == ["Loss"]


@pytest.mark.parametrize("steps", [0, 1, 5, 40])
def test_any_number_of_rows_is_drawn_without_a_warning(tmp_path: Path, steps: int) -> None:
    rows = metrics(random.Random(0), steps, 10**9)
    for row in rows[3:6]:
        row["loss"] = float("nan")
    write_lines(tmp_path / "metrics.jsonl", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plot_curves(tmp_path).stat().st_size > 3000


def test_only_evaluations_are_drawn(tmp_path: Path) -> None:
    write_lines(tmp_path / "metrics.jsonl", [{"step": 5, "eval_loss": 0.6}, {"step": 9, "eval_loss": 0.5}])
    assert titles(tmp_path) == ["Loss"]


def test_a_run_without_metrics_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        plot_curves(tmp_path)
