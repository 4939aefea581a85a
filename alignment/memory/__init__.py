"""How much memory a run will take, by part, before a weight is loaded; and what to change where it does not fit."""

from alignment.memory.estimate import Estimate, estimate

__all__ = ["Estimate", "estimate"]
