"""Feedback by one word: the run that trained it, or its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.feedback.build import build_feedback
from alignment.feedback.settings import feedback_settings
from alignment.feedback.trained import FEEDBACK
from alignment.models.loading import resolve
from alignment.models.scores import Scorer


def feedback_named(what: str) -> Any:
    """The scoring model of a folder or run, else the feedback that `feedback=what` is.

    Raises:
        UserError: no such folder or feedback, or a folder without a scoring model.
    """
    if not Path(what).expanduser().is_dir():
        return build_feedback(feedback_settings([f"feedback={what}"]))
    card = Scorer.load(Path(resolve(what)))
    return build_feedback({"name": FEEDBACK[card.kind if card else "reward"], "path": what})
