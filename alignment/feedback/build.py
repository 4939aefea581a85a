"""Feedback by name: the `feedback` section of a run, or of a command -> an object with `score`, `prefer` or `review`.

Every kind is a dataclass whose fields are its settings. A setting that is itself feedback (`of` of a wrapper) is
written as a section of its own, with a name, and built first; without settings its name is enough:

    name: both_orders
    of: {name: judge_local, path: smollm2-135m}
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from alignment.errors import UserError, nearest, unknown
from alignment.feedback.adapters import Function, as_feedback
from alignment.feedback.checks import WrongSetting
from alignment.imports import import_named

# name -> module:class. Imported when asked for: some need packages that others do not.
KINDS: dict[str, str] = {
    "reward_model": "alignment.feedback.trained:RewardModel",
    "preference_model": "alignment.feedback.trained:PreferenceModel",
    "gap_reward": "alignment.feedback.gap:GapReward",
    "reward_gap": "alignment.feedback.gap:RewardGap",
    "plain_words": "alignment.feedback.rules:PlainWords",
    "plain_critic": "alignment.feedback.plain_critic:PlainCritic",
    "length": "alignment.feedback.rules:Length",
    "regex": "alignment.feedback.rules:Regex",
    "json_valid": "alignment.feedback.rules:JsonValid",
    "repetition": "alignment.feedback.rules:Repetition",
    "exact_match": "alignment.feedback.overlap:ExactMatch",
    "numeric_match": "alignment.feedback.overlap:NumericMatch",
    "rouge": "alignment.feedback.overlap:Rouge",
    "bleu": "alignment.feedback.overlap:Bleu",
    "readability": "alignment.feedback.lexicons:Readability",
    "sentiment": "alignment.feedback.lexicons:Sentiment",
    "profanity": "alignment.feedback.lexicons:Profanity",
    "bradley_terry": "alignment.feedback.adapters:BradleyTerry",
    "mean_win": "alignment.feedback.adapters:MeanWin",
    "satisfied": "alignment.feedback.adapters:Satisfied",
    "sum": "alignment.feedback.wrappers:Sum",
    "both_orders": "alignment.feedback.wrappers:BothOrders",
    "noise": "alignment.feedback.wrappers:Noise",
    "ties": "alignment.feedback.wrappers:Ties",
    "cached": "alignment.feedback.wrappers:Cached",
    "ensemble": "alignment.feedback.panels:Ensemble",
    "annotator_pool": "alignment.feedback.panels:AnnotatorPool",
    "peer_review": "alignment.feedback.peer_review:PeerReview",
    "judge_local": "alignment.feedback.judges:PairwiseJudge",
    "judge_served": "alignment.feedback.judges:PairwiseJudge",
    "score_local": "alignment.feedback.judges:PointwiseScore",
    "score_served": "alignment.feedback.judges:PointwiseScore",
    "critique_local": "alignment.feedback.judges:Critique",
    "critique_served": "alignment.feedback.judges:Critique",
    "checklist": "alignment.feedback.checklist:Checklist",
    "wide_deep": "alignment.feedback.wide_deep:WideDeep",
}


def build_feedback(settings: Mapping[str, Any] | str, where: str = "feedback") -> Any:
    """The feedback object that `settings` describes: a name, or a mapping of `name` and its settings.

    A name of the form path/to/file.py:thing or package.module:thing is one's own: a class with one of the three
    methods, or a function (prompt messages, completion, context mapping) -> float.

    Raises:
        UserError: an unknown name or setting, or what the kind itself refuses.
    """
    name, kind, given = _read(settings, where)
    if not inspect.isclass(kind):
        return Function(kind)
    built = {key: _nested(value, f"{where}.{key}", key == "of", build_feedback) for key, value in given.items()}
    try:
        return as_feedback(kind(**built))
    except WrongSetting as error:
        raise UserError(f"{where}.{error.setting}") from error
    except TypeError as error:
        raise UserError(f"{where}.name={name}: {' '.join(str(error).split())}") from error


def check_feedback(settings: Mapping[str, Any] | str, where: str = "feedback") -> None:
    """Refuse unknown names and settings, as `build_feedback` does, and build nothing: no model is loaded."""
    _, _, given = _read(settings, where)
    for key, value in given.items():
        _nested(value, f"{where}.{key}", key == "of", check_feedback)


def _read(settings: Mapping[str, Any] | str, where: str) -> tuple[str, Any, dict[str, Any]]:
    """(name, class or function, settings), all names known."""
    if not isinstance(settings, (str, Mapping)):
        raise UserError(f"{where}={settings}: a name, or a section with a name, is needed")
    given = {"name": settings} if isinstance(settings, str) else {str(key): value for key, value in settings.items()}
    name = given.pop("name", None)
    if not name:
        has = f", not only {', '.join(given)}" if given else ""
        raise UserError(f"{where} needs a name{has}; {nearest('', KINDS)}")
    kind = _find(str(name), where)
    if not inspect.isclass(kind):
        if not callable(kind):
            raise UserError(f"{where}.name={name}: neither a class nor a function")
        if given:
            raise UserError(f"{where}.{next(iter(given))}: {name} is a function, it takes no settings")
        return str(name), kind, given
    fields = [field for field in dataclasses.fields(kind) if field.init] if dataclasses.is_dataclass(kind) else None
    for key in given if fields is not None else []:
        if key not in {field.name for field in fields or []}:
            known = nearest(key, [field.name for field in fields or []])
            raise UserError(f"{where}.{key}: {name} has no such setting; {known}")
    for field in fields or []:
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in given:
            raise UserError(f"{where}.{field.name} is needed by {name}")
    return str(name), kind, given


def _nested(value: Any, where: str, is_feedback: bool, then: Any) -> Any:
    """`then(value, where)` for each section with a name, and in `of` for each bare name, else the value."""
    if (isinstance(value, Mapping) and "name" in value) or (is_feedback and isinstance(value, (str, Mapping))):
        return then(value, where)
    if isinstance(value, (list, tuple)):
        return [_nested(item, f"{where}[{number}]", is_feedback, then) for number, item in enumerate(value)]
    return value


def _find(name: str, where: str) -> Any:
    if name in KINDS:
        module, _, attribute = KINDS[name].partition(":")
        return getattr(import_module(module), attribute)
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise unknown(where, name, KINDS)
    module_object = import_named(place, f"{where}.name={name}")
    if not hasattr(module_object, attribute):
        raise UserError(f"{where}.name={name}: there is no {attribute} in {place}")
    return getattr(module_object, attribute)
