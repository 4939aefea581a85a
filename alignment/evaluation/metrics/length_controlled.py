"""The win rate there would be if both models' answers were of one length (Dubois et al., 2404.04475).

    logit P(model ≻ baseline on x) = theta + phi · tanh(d_x / s) + psi · g_x

d_x is the length of the model's answer less that of the baseline's, s the standard deviation of d over the prompts (d
is scaled and not centred: 0 stays equal lengths), g_x the instruction's difficulty. The length-controlled win rate is
the mean over the prompts of the fit's predictions at d = 0.

The terms, and the fit to one model's annotations at a time, are those of AlpacaEval 2. What differs from its
leaderboard: that one adds annotations of its own baseline told to be longer and shorter, at a fifth of the weight,
chooses an L1 penalty by cross-validation, and gives as standard error that of the mean prediction as if the
coefficients were known. Here only the given annotations are fitted, with a ridge too small to see, and the interval is
a bootstrap over prompts that fits anew each time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.special import expit

from alignment.errors import UserError
from alignment.evaluation.metrics.logistic import fit
from alignment.evaluation.statistics import resampled, share_interval

# Normal priors of the joint fit behind `instruction_difficulty`, as standard deviations of logits: an instruction with
# the verdicts of few models is drawn towards the mean, as a model's own effects are not.
DIFFICULTY_SD, EFFECT_SD = 1.0, 10.0


@dataclass(frozen=True)
class LengthControlled:
    """`rate` in [0, 1] and its 95 % interval; `raw` is the plain win rate of the same preferences.

    `length_effect` is phi, in logits for a model's answers far longer than the baseline's; above 0 the annotator
    prefers what is longer. `n` preferences were fitted, `unknown` had no verdict.
    """

    rate: float
    low: float
    high: float
    raw: float
    length_effect: float = math.nan
    n: int = 0
    unknown: int = 0


def length_controlled(
    preferences: Sequence[float | None] | np.ndarray,
    model_lengths: Sequence[float] | np.ndarray,
    baseline_lengths: Sequence[float] | np.ndarray,
    difficulty: Sequence[float] | np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 1_000,
) -> LengthControlled:
    """Length-controlled win rate of a model over a baseline, one row a prompt.

    Args:
        preferences: P(model ≻ baseline) in [0, 1], shape (n,); a tie is 0.5. None or NaN (no verdict) is left out of
            the fit, and its prompt counts in the mean prediction all the same, as in AlpacaEval 2.
        model_lengths, baseline_lengths: of the answers, in one unit (AlpacaEval counts characters), shape (n,).
        difficulty: of the instructions in logits, shape (n,), from other models (`instruction_difficulty`); None
            leaves the term out.
        seed, resamples: of the bootstrap over prompts. The scale s and the difficulties stay as they are.

    Returns:
        NaN for rate and interval where lengths cannot be told from quality: fewer than two verdicts, or every answer
        longer by the same amount, not 0. Where every preference is 1, or every one 0, no length explains any: the raw
        rate with Wilson's interval.

    Raises:
        ValueError: sequences of unequal lengths, a preference outside [0, 1], a length or difficulty not finite.
    """
    y = np.array([math.nan if value is None else value for value in preferences], dtype=np.float64)
    apart = np.asarray(model_lengths, dtype=np.float64) - np.asarray(baseline_lengths, dtype=np.float64)
    hard = None if difficulty is None else np.asarray(difficulty, dtype=np.float64)
    known = ~np.isnan(y)
    _check(y[known], len(y), apart, hard)
    n, unknown = int(known.sum()), int((~known).sum())
    raw = float(y[known].mean()) if n else math.nan
    if n < 2 or (np.ptp(apart) == 0 and apart[0] != 0):
        return LengthControlled(math.nan, math.nan, math.nan, raw, n=n, unknown=unknown)
    if raw in (0.0, 1.0):
        return LengthControlled(raw, *share_interval(raw, n), raw, n=n, unknown=unknown)
    at_equal = np.stack([np.ones(len(y)), np.zeros(len(y)), *([] if hard is None else [hard])], axis=1)
    x, target = at_equal.copy(), np.where(known, y, 0.0)
    x[:, 1] = _tanh(apart)

    def rates(drawn: np.ndarray) -> np.ndarray:
        b = fit(x, target, drawn * known)
        return (expit(b @ at_equal.T) * drawn).sum(axis=1) / drawn.sum(axis=1)

    everything = np.ones((1, len(y)))
    low, high = np.percentile(resampled(len(y), rates, seed, resamples), [2.5, 97.5])
    effect = float(fit(x, target, everything * known)[0, 1])
    return LengthControlled(float(rates(everything)[0]), float(low), float(high), raw, effect, n, unknown)


def _check(y: np.ndarray, n: int, apart: np.ndarray, hard: np.ndarray | None) -> None:
    if apart.shape != (n,) or (hard is not None and hard.shape != (n,)):
        raise ValueError(f"{n} preferences: as many lengths and difficulties are needed")
    if ((y < 0) | (y > 1)).any():
        raise ValueError("preferences must lie in [0, 1]")
    if not np.isfinite(apart).all() or (hard is not None and not np.isfinite(hard).all()):
        raise ValueError("lengths and difficulties must be finite")


def _tanh(apart: np.ndarray) -> np.ndarray:
    """tanh of the differences over their standard deviation along the last axis; 0 where all are 0. Same shape."""
    spread = apart.std(axis=-1, ddof=1, keepdims=True) if apart.shape[-1] > 1 else np.zeros_like(apart)
    return np.tanh(np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0))


def instruction_difficulty(
    preferences: np.ndarray, model_lengths: np.ndarray, baseline_lengths: np.ndarray
) -> np.ndarray:
    """How hard it is to beat the baseline on each instruction: g_x of a joint fit over several models.

        logit P(m ≻ baseline on x) = theta_m + phi_m · tanh(d_mx / s_m) - g_x,   mean of g = 0

    with normal priors of DIFFICULTY_SD on g and EFFECT_SD on theta and phi. AlpacaEval 2 fits such a term once, over
    the models of its leaderboard, and uses it for every model. To control a model, fit it on the *other* models: on its
    own annotations too, they would explain themselves.

    Args:
        preferences: P(m ≻ baseline) in [0, 1], shape (models, n); NaN for no verdict.
        model_lengths: shape (models, n). baseline_lengths: shape (n,).

    Returns:
        Logits, shape (n,); 0 where no model has a verdict.

    Raises:
        ValueError: shapes that do not fit. UserError: no model.
    """
    y = np.atleast_2d(np.asarray(preferences, dtype=np.float64))
    apart = np.atleast_2d(np.asarray(model_lengths, dtype=np.float64)) - np.asarray(baseline_lengths, dtype=np.float64)
    if not y.size:
        raise UserError("the difficulty of instructions is fitted over other models' annotations, and there are none")
    if y.shape != apart.shape:
        raise ValueError(f"preferences {y.shape} and lengths {apart.shape} must have one shape, (models, prompts)")
    models, n = y.shape
    known = ~np.isnan(y)
    target = np.where(known, y, 0.0)
    t = _tanh(apart)

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        theta, phi, g = b[:models], b[models : 2 * models], b[2 * models :]
        z = theta[:, None] + phi[:, None] * t - g
        off = np.where(known, expit(z) - target, 0.0)
        value = np.where(known, np.logaddexp(0.0, z) - target * z, 0.0).sum()
        value += (theta @ theta + phi @ phi) / EFFECT_SD**2 / 2 + g @ g / DIFFICULTY_SD**2 / 2
        gradient = np.concatenate(
            [
                off.sum(axis=1) + theta / EFFECT_SD**2,
                (off * t).sum(axis=1) + phi / EFFECT_SD**2,
                g / DIFFICULTY_SD**2 - off.sum(axis=0),
            ]
        )
        return float(value), gradient

    start = np.zeros(2 * models + n)
    g = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2_000, "gtol": 1e-8}).x
    g = g[2 * models :]
    seen = known.any(axis=0)
    return np.where(seen, g - g[seen].mean() if seen.any() else 0.0, 0.0)
