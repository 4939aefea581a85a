"""Losses by name: `loss.name=sigmoid loss.beta=0.1` -> a function of the log-probs alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from alignment.errors import UserError, nearest, unknown
from alignment.losses.pairwise import LossOutput, sigmoid

PAIRWISE: dict[str, Callable[..., LossOutput]] = {"sigmoid": sigmoid}


def build_loss(
    settings: Mapping[str, Any], known: Mapping[str, Callable[..., LossOutput]] = PAIRWISE
) -> Callable[..., LossOutput]:
    """The loss that `settings` names, with its other entries bound as keyword arguments.

    Raises:
        UserError: an unknown loss, a setting that it does not take, or a value of the wrong kind.
    """
    arguments = dict(settings)
    name = str(arguments.pop("name", "sigmoid"))
    if name not in known:
        raise unknown("loss", name, known)
    takes = list(inspect.signature(known[name]).parameters)[1:]
    for key, value in arguments.items():
        if key not in takes:
            raise UserError(f"loss.{key}: the loss '{name}' takes no such setting ({nearest(key, takes)})")
        if not isinstance(value, (int, float)):
            raise UserError(f"loss.{key}={value}: a number is needed")
    if arguments.get("beta", 1) <= 0:
        raise UserError(f"loss.beta={arguments['beta']}: must be greater than 0")
    if not 0 <= arguments.get("label_smoothing", 0) < 0.5:
        raise UserError(f"loss.label_smoothing={arguments['label_smoothing']}: must be in [0, 0.5)")
    return functools.partial(known[name], **arguments)
