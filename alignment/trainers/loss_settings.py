"""Losses by name: the `loss` section of a run -> a function of the log-probs alone."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignment.batching.judged import Form
from alignment.config import LOSS_MODIFIERS
from alignment.errors import UserError, nearest, unknown
from alignment.imports import import_named
from alignment.losses import cut, pairwise, policy_gradient, reference_free, unpaired
from alignment.losses.combine import PairLoss, Term
from alignment.losses.gap import gap
from alignment.losses.modifiers import DIVERGENCES
from alignment.losses.record import LossOutput
from alignment.losses.reward import bradley_terry

Loss = Callable[..., LossOutput]

WITH_REFERENCE: dict[str, Loss] = {
    "sigmoid": pairwise.sigmoid,
    "robust": pairwise.robust,
    "hinge": pairwise.hinge,
    "ipo": pairwise.ipo,
    "r_dpo": pairwise.r_dpo,
    "sigmoid_norm": pairwise.sigmoid_norm,
    "exo": pairwise.exo,
    "nca": pairwise.nca,
    "bco_pair": pairwise.bco_pair,
    "apo_zero": pairwise.apo_zero,
    "apo_down": pairwise.apo_down,
    "sppo": pairwise.sppo,
    "discopop": pairwise.discopop,
}
REFERENCE_FREE: dict[str, Loss] = {
    "simpo": reference_free.simpo,
    "orpo": reference_free.orpo,
    "cpo": reference_free.cpo,
    "sft": reference_free.sft,
}
PAIRWISE = WITH_REFERENCE | REFERENCE_FREE
UNPAIRED: dict[str, Loss] = {"kto": unpaired.kto, "bco": unpaired.bco}
JUDGED: dict[str, Loss] = {
    "cut": cut.cut,
    "unlikelihood": cut.unlikelihood,
    **dict.fromkeys(("mle", "hindsight", "conditional", "forward_prediction"), cut.likelihood),
}

# parameter, or loss.parameter where one loss differs: (lowest, highest, open at the low end, at the high end)
RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "beta": (0, math.inf, True, True),
    "label_smoothing": (0, 0.5, False, True),
    "exo.label_smoothing": (0, 0.5, True, True),
    "gamma": (0, math.inf, False, True),
    "length_alpha": (0, math.inf, False, True),
    "tau": (0, 1, True, False),
    "nll_weight": (0, math.inf, False, True),
    "desirable_weight": (0, math.inf, True, True),
    "undesirable_weight": (0, math.inf, True, True),
    "weight": (-math.inf, math.inf, True, True),
    "cut.weight": (0, math.inf, False, True),
    "unlikelihood.weight": (0, math.inf, False, True),
    "margin": (1, math.inf, False, False),
    "exponent": (0, math.inf, False, True),
    "margin_weight": (0, math.inf, False, True),
    "centring": (0, math.inf, False, True),
    "kl_coef": (0, math.inf, False, True),
    "nash_md.tau": (0, math.inf, False, True),
    "epsilon": (0, 1, True, True),
    "value_epsilon": (0, math.inf, True, True),
    "value_coef": (0, math.inf, False, True),
    "smoothing": (0, 1, False, False),
    "kl_target": (0, math.inf, True, True),
    "ratio_limit": (1, math.inf, True, True),
    "divergence_alpha": (0, 1, True, True),
    "ld_alpha": (0, 1, False, False),
}
CHOICES = {
    "length": ("mean", "sum"),
    "divergence": DIVERGENCES,
    "weighting": ("wpo", None),
    "mean": ("token", "sequence"),
    "clipping": ("separate", "joint"),
    "kl": ("sequence", "token"),
    "variant": ("paper", "authors_code", "authors_script"),
    "answers": ("satisfactory", "all"),
}


def build_loss(settings: Mapping[str, Any]) -> PairLoss:
    """The loss on pairs that `settings` describes: `name` with its parameters, or `terms`, and modifiers beside them.

    Raises:
        UserError: an unknown loss, a setting that it does not take, or a value of the wrong kind or range.
    """
    rest = dict(settings)
    modifiers = {key: rest.pop(key) for key in LOSS_MODIFIERS if key in rest}
    for key, value in modifiers.items():
        _check(f"loss.{key}", key, value)
    terms = _terms(rest) if "terms" in rest else (_term(rest, "loss"),)
    loss = PairLoss(terms, **modifiers)
    changes_ratios = loss.divergence != "reverse_kl" or loss.ld_alpha != 1
    if changes_ratios and not loss.needs_reference:
        key = "divergence" if loss.divergence != "reverse_kl" else "ld_alpha"
        names = ", ".join(term.name for term in terms)
        raise UserError(f"loss.{key} acts on log-ratios to a reference, and {names} has none: leave it out")
    return loss


def build_unpaired_loss(settings: Mapping[str, Any]) -> Loss:
    """`kto` or `bco` as a function of (UnpairedLogps, the statistic of the step). Raises UserError as `build_loss`."""
    rest = dict(settings)
    name = str(rest.pop("name", "kto"))
    if name not in UNPAIRED:
        raise UserError(f"loss.name={name}: single answers need a loss of their own: {', '.join(UNPAIRED)}")
    return _bound(UNPAIRED[name], name, rest, "loss", given=2)


def build_reward_loss(settings: Mapping[str, Any]) -> Loss:
    """`bradley_terry` as a function of PairScores. Raises UserError as `build_loss`."""
    rest = dict(settings)
    name = str(rest.pop("name", "bradley_terry"))
    if name != "bradley_terry":
        raise UserError(f"loss.name={name}: a model that scores answers is trained with loss=bradley_terry")
    return _bound(bradley_terry, name, rest, "loss")


def build_gap_loss(settings: Mapping[str, Any]) -> Loss:
    """`gap` as a function of GapScores. Raises UserError as `build_loss`."""
    rest = dict(settings)
    name = str(rest.pop("name", "gap"))
    if name != "gap":
        raise UserError(f"loss.name={name}: a gap model is trained with loss=gap")
    return _bound(gap, name, rest, "loss")


def build_judged_loss(settings: Mapping[str, Any]) -> tuple[Loss, Form]:
    """(a function of JudgedLogps and the statistic of the step, the form of its units as in batching/judged.py).

    Raises:
        UserError: as `build_loss`.
    """
    rest = dict(settings)
    name = str(rest.pop("name", "cut"))
    if name not in JUDGED:
        raise UserError(f"loss.name={name}: judged answers need a loss of their own: {', '.join(JUDGED)}")
    form: Any = "plain" if name == "unlikelihood" else name
    if name == "mle":
        form = rest.pop("answers", "satisfactory")
        _check("loss.answers", "answers", form)
        form = "plain" if form == "all" else form
    elif name == "cut" and rest.get("variant", "paper") != "paper":
        form = "authors_code"
    loss = _bound(JUDGED[name], name, rest, "loss", given=2)
    if form == "authors_code" and rest.get("exponent") is not None:
        raise UserError("loss.exponent: the authors' code has no such weight; leave it out, or take loss.variant=paper")
    return loss, form


ON_SAMPLES: dict[str, Loss] = {
    "p3o": policy_gradient.p3o,
    "nash_md": policy_gradient.nash_md,
    "rloo": policy_gradient.rloo,
    "grpo": policy_gradient.grpo,
    "reinforce": policy_gradient.reinforce,
}


def build_policy_loss(settings: Mapping[str, Any], names: Sequence[str]) -> Loss:
    """One of the losses `names` on sampled completions. Raises UserError as `build_loss`."""
    rest = dict(settings)
    name = str(rest.pop("name", names[0]))
    if name not in names:
        raise UserError(f"loss.name={name}: this method is trained with loss={' or '.join(names)}")
    return _bound(ON_SAMPLES[name], name, rest, "loss", given=2 if name in ("nash_md", "reinforce") else 1)


def build_ppo_loss(settings: Mapping[str, Any]) -> tuple[Loss, dict[str, Any]]:
    """(`ppo` as a function of samples, advantages, returns, values and old values; what its trainer needs besides)."""
    rest = {"whiten": True, "smoothing": 0.95, "kl_target": None, **settings}
    name = str(rest.pop("name", "ppo"))
    if name != "ppo":
        raise UserError(f"loss.name={name}: recipe=ppo is trained with loss=ppo")
    own = {key: rest.pop(key) for key in ("whiten", "smoothing", "kl_target")}
    _check("loss.whiten", "scale", own["whiten"])
    _check("loss.smoothing", "smoothing", own["smoothing"])
    if own["kl_target"] is not None:
        _check("loss.kl_target", "kl_target", own["kl_target"])
    _check("loss.kl_coef", "kl_coef", rest.pop("kl_coef", 0.05))  # a part of the rewards, not of the loss
    return _bound(policy_gradient.ppo, name, rest, "loss", given=5), own


def build_sft_loss(settings: Mapping[str, Any]) -> str:
    """How an SFT step is averaged: `token` or `sequence`."""
    rest = dict(settings)
    name = str(rest.pop("name", "nll"))
    if name != "nll":
        raise UserError(f"loss.name={name}: recipe=sft is trained with loss=nll")
    mean = str(rest.pop("mean", "token"))
    if rest:
        raise UserError(
            f"loss.{next(iter(rest))}: the loss 'nll' takes no such setting ({nearest(next(iter(rest)), ['mean'])})"
        )
    _check("loss.mean", "mean", mean)
    return mean


def _terms(settings: dict[str, Any]) -> tuple[Term, ...]:
    terms = settings.pop("terms")
    if settings:
        raise UserError(
            f"loss.{next(iter(settings))} stands beside loss.terms: a sum has its parameters inside the terms; "
            "start from loss=sigmoid_sft and set loss.terms"
        )
    if not terms or not all(isinstance(term, Mapping) and "name" in term for term in terms):
        raise UserError("loss.terms: a list such as [{name: sigmoid, beta: 0.1}, {name: sft, weight: 0.2}] is needed")
    return tuple(_term(dict(term), f"loss.terms[{number}]") for number, term in enumerate(terms))


def _term(settings: dict[str, Any], where: str) -> Term:
    name = str(settings.pop("name", "sigmoid"))
    weight = settings.pop("weight", 1.0) if where != "loss" else 1.0
    _check(f"{where}.weight", "weight", weight)
    if ":" in name:
        function = _import(name, where)
        needs_reference = bool(getattr(function, "needs_reference", True))
        return Term(name.rpartition(":")[2], _bound(function, name, settings, where), weight, needs_reference)
    if name in UNPAIRED:
        raise UserError(f"{where}.name={name}: this loss judges single answers, not pairs; use recipe=kto loss={name}")
    if name not in PAIRWISE:
        raise unknown("loss", name, PAIRWISE)
    return Term(name, _bound(PAIRWISE[name], name, settings, where), weight, name in WITH_REFERENCE)


def _bound(function: Loss, name: str, settings: Mapping[str, Any], where: str, given: int = 1) -> Loss:
    """`function` with `settings` as its keyword arguments; its first `given` parameters come at the call."""
    takes = dict(list(inspect.signature(function).parameters.items())[given:])
    own = ":" in name
    mend = "" if own or where != "loss" else f"; for another loss write loss={name}, not loss.name={name}"
    for key, value in settings.items():
        if key not in takes:
            raise UserError(f"{where}.{key}: the loss '{name}' takes no such setting ({nearest(key, takes)}){mend}")
        if not own:
            _check(f"{where}.{key}", key, value, name)
    for key, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and key not in settings:
            options = f": {' or '.join(map(str, CHOICES[key]))}" if key in CHOICES else ""
            raise UserError(f"{where}.{key} is needed by the loss '{name}'{options}")
    return functools.partial(function, **settings)


def _check(label: str, key: str, value: Any, name: str = "") -> None:
    if key == "scale":
        if not isinstance(value, bool):
            raise UserError(f"{label}={value}: true or false is needed")
        return
    if value is None and key in ("epsilon", "exponent"):
        return
    if key in CHOICES:
        if value not in CHOICES[key]:
            options = [str(option) for option in CHOICES[key] if option is not None]
            raise UserError(f"{label}={value}: {nearest(str(value), options)} (known: {', '.join(options)})")
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{label}={value}: a number is needed")
    low, high, above, below = RANGES.get(f"{name}.{key}") or RANGES[key]
    fits = (value > low if above else value >= low) and (value < high if below else value <= high)
    if not fits:
        limits = f"in {'(' if above else '['}{low}, {high}{')' if below else ']'}"
        if high == math.inf:
            limits = "finite" if low == -math.inf else f"{'greater than' if above else 'at least'} {low}"
            limits += ", and finite" if below and low > -math.inf else ""
        raise UserError(f"{label}={value}: must be {limits}")


def _import(name: str, where: str) -> Loss:
    """The function that `path/to/file.py:function` or `package.module:function` names."""
    place, _, attribute = name.rpartition(":")
    module = import_named(place, f"{where}.name={name}")
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(f"{where}.name={name}: no function '{attribute}' in {place} ({nearest(attribute, known)})")
    return function
