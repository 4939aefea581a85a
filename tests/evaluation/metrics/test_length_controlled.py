"""The length-controlled win rate by closed forms, on made-up annotators, and against the fit of the judge audit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit, logit

from alignment.errors import UserError
from alignment.evaluation.metrics.length_controlled import instruction_difficulty, length_controlled
from alignment.evaluation.metrics.logistic import RIDGE, fit


def annotated(n: int, theta: float, phi: float, psi: float = 0.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    """0/1 preferences, both lengths and difficulties of an annotator with these coefficients; the model is longer."""
    rng = np.random.default_rng(seed)
    model, base = rng.integers(300, 2500, n), rng.integers(200, 1500, n)
    apart, hard = (model - base).astype(float), rng.normal(size=n)
    p = expit(theta + phi * np.tanh(apart / apart.std(ddof=1)) - psi * hard)
    return (rng.random(n) < p).astype(float), model, base, hard


def test_a_group_longer_and_one_shorter_by_hand() -> None:
    # Half of the answers are longer by 10 and win 80 %, half shorter by 10 and win 40 %: at equal lengths the logit is
    # the mean of both, whatever the scale.
    y = np.array([1.0] * 80 + [0.0] * 20 + [1.0] * 40 + [0.0] * 60)
    model = np.array([20] * 100 + [10] * 100)
    base = np.array([10] * 100 + [20] * 100)
    found = length_controlled(y, model, base)
    assert found.raw == pytest.approx(0.6) and found.n == 200
    assert found.rate == pytest.approx(expit((logit(0.8) + logit(0.4)) / 2), abs=1e-4)
    scale = math.tanh(10 / (model - base).std(ddof=1))
    assert found.length_effect == pytest.approx((logit(0.8) - logit(0.4)) / 2 / scale, rel=1e-3)
    # The delta method: se of the mean of two independent logits.
    se = math.sqrt(1 / 80 + 1 / 20 + 1 / 40 + 1 / 60) / 2
    ends = expit(logit(found.rate) + 1.96 * se * np.array([-1, 1]))
    assert [found.low, found.high] == pytest.approx(ends, abs=0.02)


def test_an_annotator_that_looks_at_length_alone() -> None:
    y, model, base, _ = annotated(800, theta=0.0, phi=2.0)
    found = length_controlled(y, model, base)
    assert found.raw > 0.62 and found.length_effect == pytest.approx(2.0, abs=0.5)
    assert found.low < 0.5 < found.high


def test_one_that_does_not_look_at_length() -> None:
    y, model, base, _ = annotated(800, theta=0.4, phi=0.0)
    found = length_controlled(y, model, base)
    assert found.rate == pytest.approx(found.raw, abs=0.03) and found.low > 0.5
    swapped = length_controlled(1 - y, base, model)
    assert swapped.rate == pytest.approx(1 - found.rate, abs=1e-6)
    same = length_controlled(y, base, base)  # equal lengths: nothing to control
    assert same.rate == pytest.approx(same.raw, abs=1e-5) and same.length_effect == 0.0


@pytest.mark.slow
def test_the_interval_covers() -> None:
    inside = []
    for seed in range(100):
        y, model, base, _ = annotated(150, theta=-0.3, phi=1.0, seed=seed)
        found = length_controlled(y, model, base, resamples=300)
        inside.append(found.low <= expit(-0.3) <= found.high)
    assert 0.88 <= np.mean(inside) <= 0.99


def test_difficulty_is_averaged_over_the_prompts() -> None:
    y, model, base, hard = annotated(4000, theta=0.5, phi=1.0, psi=2.0)
    found = length_controlled(y, model, base, hard, resamples=50)
    assert found.rate == pytest.approx(expit(0.5 - 2.0 * hard).mean(), abs=0.02)
    assert length_controlled(y, model, base, 3 * hard, resamples=5).rate == pytest.approx(found.rate, abs=1e-3)
    unscaled = length_controlled(y, 7 * model, 7 * base, hard, resamples=5)
    assert unscaled.rate == pytest.approx(found.rate)  # characters, words or tokens, in one unit


def test_no_verdicts_are_left_out_of_the_fit() -> None:
    y, model, base, hard = annotated(400, theta=0.2, phi=0.5, psi=1.0)
    some = [None if row % 4 == 0 else value for row, value in enumerate(y)]
    found = length_controlled(some, model, base, hard)
    assert (found.n, found.unknown) == (300, 100)
    assert found.raw == pytest.approx(np.mean([value for value in some if value is not None]))
    assert found.rate == length_controlled([math.nan if v is None else v for v in some], model, base, hard).rate


def test_what_cannot_be_told() -> None:
    for found in (
        length_controlled([], [], []),
        length_controlled([1.0], [3], [4]),
        length_controlled([None, None], [3, 1], [4, 1]),
        length_controlled([1.0, 0.0], [13, 12], [3, 2]),  # always longer by 10
    ):
        assert math.isnan(found.rate) and math.isnan(found.low) and math.isnan(found.high)
    won = length_controlled([1.0] * 20, np.arange(20), np.ones(20))
    assert won.rate == won.raw == won.high == 1.0 and won.low == pytest.approx(0.8389, abs=1e-3)  # Wilson
    separate = length_controlled([1.0, 0.0] * 50, [9, 1] * 50, [5] * 100)  # length says it all
    assert separate.rate == pytest.approx(0.5, abs=1e-6) and 0 <= separate.low <= separate.high <= 1


def test_bad_input() -> None:
    for arguments, message in (
        (([1.0, 2.0], [1, 2], [1, 1]), r"\[0, 1\]"),
        (([1.0, 0.0], [1], [1]), "2 preferences"),
        (([1.0, 0.0], [1, 2], [1, 1], [0.0]), "2 preferences"),
        (([1.0, 0.0], [1, math.nan], [1, 1]), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            length_controlled(*arguments)  # type: ignore[arg-type]


def test_the_fit_is_the_minimum_that_scipy_finds() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(300), rng.normal(size=300), rng.normal(size=300)], axis=1)
    y = rng.random(300)

    def loss(b: np.ndarray) -> float:
        return float((np.logaddexp(0.0, x @ b) - y * (x @ b)).sum() + RIDGE / 2 * b @ b)

    expected = optimize.minimize(loss, np.zeros(3)).x
    assert fit(x, y, np.ones((1, 300)))[0] == pytest.approx(expected, abs=1e-5)
    # A weight of 2 is the row twice.
    weights = rng.integers(0, 3, 300)
    repeated = np.repeat(np.arange(300), weights)
    both = fit(x, y, np.stack([weights.astype(float), np.ones(300)]))
    assert both[0] == pytest.approx(fit(x[repeated], y[repeated], np.ones((1, len(repeated))))[0])
    assert both[1] == pytest.approx(expected, abs=1e-5)


def test_difficulty_is_found_from_other_models() -> None:
    rng = np.random.default_rng(0)
    models, n = 30, 200
    hard = rng.normal(size=n)
    lengths, base = rng.integers(100, 900, (models, n)), np.full(n, 500)
    apart = lengths - base
    theta, t = rng.normal(0, 0.7, models), np.tanh(apart / apart.std(axis=1, ddof=1, keepdims=True))
    y = (rng.random((models, n)) < expit(theta[:, None] + t - hard)).astype(float)
    y[:, 0] = np.nan
    y[3, 5:50] = np.nan
    found = instruction_difficulty(y, lengths, base)
    assert found.shape == (n,) and found[0] == 0.0
    assert found[1:].mean() == pytest.approx(0, abs=1e-6)
    assert np.corrcoef(found[1:], hard[1:])[0, 1] > 0.85
    assert np.std(found) < 1.2 * np.std(hard)  # drawn towards the mean
    # With it, the interval of a model on the same instructions is at least not off.
    mine = (rng.random(n) < expit(0.3 - hard)).astype(float)
    rate = length_controlled(mine, lengths[0], base, found).rate
    assert rate == pytest.approx(expit(0.3 - hard).mean(), abs=0.08)


def test_difficulty_without_models() -> None:
    with pytest.raises(UserError, match="there are none"):
        instruction_difficulty(np.empty((0, 5)), np.empty((0, 5)), np.ones(5))
    with pytest.raises(ValueError, match="one shape"):
        instruction_difficulty(np.ones((2, 5)), np.ones((3, 5)), np.ones(5))
    # All models win the one and lose the other: the sign is that of "hard".
    found = instruction_difficulty(np.array([[1.0, 0.0]] * 4), np.ones((4, 2)), np.ones(2))
    assert found[0] < 0 < found[1]
