"""Many weighted logistic regressions at once, which a bootstrap that fits anew needs."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

RIDGE = 0.01  # a normal prior of standard deviation 10, so that perfect separation stays finite


def fit(x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Coefficients of logistic regressions of `y` on `x`, one for each row of weights, shape (b, k).

    The minimum of sum_n w_n · loss_n + ridge / 2 · |b|², by Newton's method for all rows of weights together.

    Args:
        x: shape (n, k), float64. y: in [0, 1], shape (n,). weights: at least 0, shape (b, n).
        ridge: above 0, so that there is a minimum where classes are separate or columns depend on each other.
    """
    n, k = x.shape
    squares = (x[:, :, None] * x[:, None, :]).reshape(n, k * k)
    found = np.zeros((len(weights), k))
    for _ in range(200):
        p = expit(found @ x.T)
        gradient = (weights * (p - y)) @ x + ridge * found
        curvature = ((weights * p * (1.0 - p)) @ squares).reshape(-1, k, k) + ridge * np.eye(k)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        # Where classes are separate a full step can leap past the minimum by far.
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
        found -= step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return found
