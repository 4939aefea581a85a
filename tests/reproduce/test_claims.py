"""Verdicts: the whole interval in the claim's range, none of it, or neither."""

from __future__ import annotations

import json
import math

import pytest

from alignment.evaluation.agreement import Estimate
from alignment.reproduce.claims import AGAINST, NOTHING, OPEN, SUPPORTED, Claim, Finding


@pytest.mark.parametrize(
    ("ends", "ours", "verdict"),
    [
        ({"above": 0.0}, (0.5, 0.1, 0.9), SUPPORTED),
        ({"above": 0.0}, (0.5, -0.1, 0.9), OPEN),
        ({"above": 0.0}, (-0.5, -0.9, -0.1), AGAINST),
        ({"above": 0.0}, (0.0, 0.0, 0.0), AGAINST),  # equal is not above
        ({"above": -0.2}, (-0.05, -0.15, 0.05), SUPPORTED),  # at or above, with its tolerance
        ({"above": -0.2}, (-0.3, -0.5, -0.25), AGAINST),
        ({"below": 0.0}, (-0.5, -0.9, -0.1), SUPPORTED),
        ({"below": 0.0}, (0.5, 0.1, 0.9), AGAINST),
        ({"above": 0.85, "below": 1.15}, (1.0, 0.9, 1.1), SUPPORTED),
        ({"above": 0.85, "below": 1.15}, (1.1, 0.9, 1.3), OPEN),
        ({"above": 0.85, "below": 1.15}, (1.5, 1.3, 1.7), AGAINST),
        ({"above": -1e-9, "below": 1e-9}, (0.0, 0.0, 0.0), SUPPORTED),
        ({"above": 0.0}, (math.nan, math.nan, math.nan), NOTHING),
        ({"above": 0.0}, (0.5, math.nan, math.nan), NOTHING),  # a figure without an interval says nothing
    ],
)
def test_verdicts(ends: dict[str, float], ours: tuple[float, float, float], verdict: str) -> None:
    assert Finding(Claim("it is so", "said", "a share", **ends), Estimate(*ours)).verdict == verdict


def test_json_has_no_infinity() -> None:
    found = Finding(Claim("it is so", "said", "a share", above=0.0), Estimate(0.5, 0.1, 0.9), "9 prompts").to_json()
    plain = json.loads(json.dumps(found, allow_nan=False))
    assert plain["above"] == 0.0 and plain["below"] is None
    assert plain["ours"] == [0.5, 0.1, 0.9] and plain["verdict"] == SUPPORTED and plain["over"] == "9 prompts"
