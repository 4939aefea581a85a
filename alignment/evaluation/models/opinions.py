"""Who says how good answers are: rewards that score them, judges that compare two, by the words of a command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.models.contestants import named
from alignment.feedback.adapters import BradleyTerry, as_feedback, inside, label
from alignment.feedback.build import check_feedback
from alignment.feedback.named import feedback_named
from alignment.feedback.protocols import Context, Judge, Prompts
from alignment.feedback.settings import feedback_settings
from alignment.feedback.wrappers import BothOrders


@dataclass
class Opinion:
    """A reward or a judge, built when it is first asked: a model that judges takes memory.

    Args:
        what: a feedback's name, a YAML file of its settings, the run or folder of a scoring model; or the object.
    """

    name: str
    what: Any
    option: str  # --score or --judge, for messages
    loads_a_model: bool = False  # in this process, when it is built
    _built: Any = None

    @property
    def feedback(self) -> Any:
        """The feedback object.

        Raises:
            UserError: as `feedback_named`; a judge as --score; one that looks at the rows of a call together.
        """
        if self._built is None:
            built = feedback_named(self.what) if isinstance(self.what, str) else as_feedback(self.what)
            if self.option == "--score" and isinstance(built, Judge) and not hasattr(built, "score"):
                raise UserError(f"--score {self.name} compares answers and scores none: --judge {self.name}")
            if any(getattr(part, "rows_together", False) for part in inside(built)):
                raise UserError(
                    f"{self.option} {self.name} looks at several answers at once, so no verdict stands for itself"
                    "\nMend: the judge inside it, as --judge"
                )
            self._built = built
        return self._built

    @property
    def compares(self) -> bool:
        """Whether it is asked about two answers at a time; else their scores are compared."""
        return self.option == "--judge" and isinstance(self.feedback, Judge)

    @property
    def has_orders(self) -> bool:
        """Whether its verdict can depend on which answer comes first."""
        if not self.compares or isinstance(self.feedback, BradleyTerry):
            return False
        from alignment.feedback.trained import PreferenceModel  # imports torch

        return not isinstance(self.feedback, PreferenceModel)  # antisymmetric by its making

    @property
    def in_one_order(self) -> Any:
        """The feedback as it is asked here: in both orders by itself, it would not tell what it said in each."""
        feedback = self.feedback
        while isinstance(feedback, BothOrders):
            feedback = feedback.of
        return OneOrder(feedback) if getattr(feedback, "both_orders", False) is True else feedback


class OneOrder(Judge):
    """An LLM judge with `both_orders`, asked in the order that is given alone."""

    def __init__(self, judge: Any) -> None:
        self.judge = judge

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        return self.judge.in_one_order(prompts, first, second, context)


def opinions(given: Iterable[Any], option: str) -> list[Opinion]:
    """Those that `NAME=WHAT`, `WHAT`, or objects name, in order. Nothing is built; unknown names are refused.

    Raises:
        UserError: no such feedback, or two of one name.
    """
    found: list[Opinion] = []
    for each in given:
        if isinstance(each, str):
            own, what = named(each)
            loads = Path(what).expanduser().is_dir()
            if not loads:
                settings = feedback_settings([f"feedback={what}"])
                check_feedback(settings, f"{option} {what}")
                loads = _has_path(settings)
            found.append(Opinion(own or _short(what), what, option, loads))
        else:
            found.append(Opinion(label(each), each, option))
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{option}: two are called {name}; name them yourself, as in {option} a={name}")
    return found


def _has_path(settings: Any) -> bool:
    """Whether a model is named by its path, anywhere in the settings."""
    if isinstance(settings, dict):
        return any((key == "path" and value is not None) or _has_path(value) for key, value in settings.items())
    return isinstance(settings, list) and any(map(_has_path, settings))


def _short(what: str) -> str:
    path = Path(what.partition(":")[0])
    if what.endswith((".yaml", ".yml")) or ":" in what:
        return what.rpartition(":")[2] if ":" in what else path.stem
    return "/".join(path.parts[-2:]) if len(path.parts) > 1 and path.name[:1].isdigit() else path.name
