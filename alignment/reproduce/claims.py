"""What a paper says, as a figure that lies in a range, and whether a measured one with its interval does."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from alignment.evaluation.agreement import Estimate
from alignment.reproduce.estimates import NOT_MEASURED

SUPPORTED, AGAINST, OPEN, NOTHING = "supported", "not supported", "not told apart", "not measured"


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, and the range that its figure lies in where the sentence is true.

    A claim of equality has both ends; one that has a tolerance says so in its text.
    """

    text: str
    published: str  # the paper's own figures
    figure: str  # what is measured, with its unit
    above: float = -math.inf
    below: float = math.inf
    digits: int = 2


@dataclass(frozen=True)
class Finding:
    """A claim, what was measured, and what that says."""

    claim: Claim
    ours: Estimate = NOT_MEASURED
    over: str = ""  # what was resampled for the interval

    @property
    def verdict(self) -> str:
        """Supported: the whole interval lies inside the claim's range. Not supported: none of it does."""
        claim, ours = self.claim, self.ours
        if not all(map(math.isfinite, ours[:3])):
            return NOTHING
        if claim.above < ours.low and ours.high < claim.below:
            return SUPPORTED
        if ours.high <= claim.above or ours.low >= claim.below:
            return AGAINST
        return OPEN

    def to_json(self) -> dict[str, Any]:
        """A plain mapping; an open end of the range and what was not measured are None."""
        claim = {key: finite(value) for key, value in asdict(self.claim).items() if key != "digits"}
        return {**claim, "ours": [finite(end) for end in self.ours[:3]], "over": self.over, "verdict": self.verdict}


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: None stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
