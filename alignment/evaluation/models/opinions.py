"""Who says how good answers are: rewards that score them, judges that compare two, by the words of a command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import UserError
from alignment.evaluation.models.contestants import named
from alignment.feedback.adapters import as_feedback, inside, label
from alignment.feedback.build import check_feedback
from alignment.feedback.named import feedback_named
from alignment.feedback.protocols import Judge
from alignment.feedback.settings import feedback_settings


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
