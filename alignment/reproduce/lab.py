"""Trained models and their answers, each made once and kept in a folder by what it depends on, for all tables."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alignment.data.example import Example, Message
from alignment.evaluation.files import write_atomically

VERSION = 1  # raised where the same settings give something else
DONE = "done.json"


@cache
def composer() -> Any:
    """What makes configurations of recipes and overrides; made once, since it reads every file of recipes/."""
    from alignment.launch.compose import Composer

    return Composer.create()


@dataclass(frozen=True)
class Answers:
    """K answers to each of P prompts: texts, tokens, and log pi/ref in nats (0 where there is no adapter)."""

    texts: list[list[str]]
    tokens: list[list[int]]
    log_ratio: list[list[float]]

    def first(self, k: int) -> Answers:
        """The first k answers to each prompt."""
        texts, tokens, log_ratio = ([row[:k] for row in part] for part in (self.texts, self.tokens, self.log_ratio))
        return Answers(texts, tokens, log_ratio)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sampled:
    """How answers are drawn."""

    max_new_tokens: int
    k: int = 1
    temperature: float = 1.0
    seed: int = 0


class Lab:
    """Makes runs and answers in `folder`; what is there is taken as it is.

    A run is one call of a trainer with the settings that a recipe and overrides compose to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def run(
        self,
        recipe: str,
        seed: int,
        *overrides: str,
        feedback: Any = None,
        train: Sequence[Any] | None = None,
        held_out: Sequence[Any] | None = None,
        trainer: Callable[..., Any] | None = None,
        at: Sequence[int] = (),
    ) -> Path:
        """The folder of a run on `tiny`, trained where it is not there.

        Args:
            recipe, overrides: as on the command line; another model.path is an override.
            feedback: an object in place of the settings'. Its class and fields are what the run is known by.
            train, held_out: records of the trainer's view, or Examples; None takes the recipe's data.
            trainer: another class than that of the recipe's method.
            at: steps after which the model is kept, too, as `at-STEP`.
        """
        fixed = ["model=tiny", f"seed={seed}", "training.bf16=false"]
        parts = [recipe, [*fixed, *overrides], _identity(feedback), _plain(train), _plain(held_out)]
        parts += [getattr(trainer, "__qualname__", None), list(at)]
        folder = self.folder / "runs" / f"{Path(recipe).stem}-{self._digest(parts)}"
        if not (folder / DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            train_run(folder, recipe, [*fixed, *overrides], feedback, train, held_out, trainer, at)
            (folder / DONE).write_text(json.dumps({"recipe": recipe, "overrides": [*fixed, *overrides]}) + "\n")
            gc.collect()  # a trainer and its model hold on to each other
        return folder

    def staged(self, recipe: str, seed: int, *overrides: str, data: Sequence[Example]) -> Path:
        """The folder of a run of several stages (cut_online, ilf) on a file of `data`; its log is `log.txt` in it."""
        fixed = ["model=tiny", f"seed={seed}", "training.bf16=false", "evaluation.prompts=0", "evaluation.score=null"]
        rows = [example.to_dict() for example in data]
        folder = self.folder / "runs" / f"{recipe}-{self._digest([recipe, [*fixed, *overrides], rows])}"
        if not (folder / DONE).is_file():
            from alignment.launch.run import run

            shutil.rmtree(folder, ignore_errors=True)
            file = folder.with_suffix(".jsonl")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))
            given = [*fixed, *overrides, f"data.path={file}", "data.eval_path=null", f"output_dir={folder}"]
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                run(composer().config([f"recipe={recipe}", *given]), given)
            (folder / "log.txt").write_text(said.getvalue(), encoding="utf-8")
            (folder / DONE).write_text(json.dumps({"recipe": recipe, "overrides": given}) + "\n")
        return folder

    def answers(self, model: str | Path, prompts: Sequence[list[Message]], sampled: Sampled) -> Answers:
        """What a model (`tiny`, or a run or one of its `at-STEP` folders) answers, with the KL to its base."""
        parts = ["answers", str(model), [*prompts], dataclasses.asdict(sampled)]
        file = self.folder / "answers" / f"{Path(model).name}-{self._digest(parts)}.json"
        if not file.is_file():
            from alignment.reproduce.asking import ask

            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(dataclasses.asdict(ask(model, prompts, sampled)), ensure_ascii=False))
        return Answers(**json.loads(file.read_text(encoding="utf-8")))

    def _digest(self, parts: Any) -> str:
        """Of plain values; the lab's own place is no part of it, so that it may be moved."""
        text = json.dumps([VERSION, parts], sort_keys=True).replace(json.dumps(str(self.folder))[1:-1], "LAB")
        return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def train_run(
    folder: Path,
    recipe: str,
    overrides: Sequence[str],
    feedback: Any = None,
    train: Sequence[Any] | None = None,
    held_out: Sequence[Any] | None = None,
    trainer: Callable[..., Any] | None = None,
    at: Sequence[int] = (),
) -> None:
    """Train in `folder`, and keep the model in it. Args: as of `Lab.run`."""
    from alignment.launch.quiet import quiet_libraries
    from alignment.trainers.termination import TERMINATION

    quiet_libraries()
    config = composer().config([f"recipe={recipe}", *overrides])
    if trainer is None:
        from alignment.launch.training_run import METHODS

        trainer = METHODS[config.method]
    given = {} if feedback is None else {"feedback": feedback}
    made = trainer(config=config, train=train, eval=held_out, folder=folder, **given)
    if at:
        made.add_callback(_keeping(made, folder, at))
    made.train()
    if hasattr(made, "accelerator"):
        TERMINATION.raise_if_agreed(made.accelerator)  # a run of several stages listens to SIGTERM from then on
    made.save_policy(folder / "model")


def _identity(feedback: Any) -> Any:
    from alignment.feedback.wrappers import settings_of

    return None if feedback is None else settings_of(feedback)


def _plain(records: Sequence[Any] | None) -> Any:
    if records is None:
        return None
    return [record if isinstance(record, Mapping) else dataclasses.asdict(record) for record in records]


def _keeping(trainer: Any, folder: Path, at: Sequence[int]) -> Any:
    from transformers import TrainerCallback

    class Keep(TrainerCallback):
        """Saves the model after some of the steps."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in at:
                trainer.save_policy(folder / f"at-{state.global_step}")

    return Keep()


def default_folder(scale: str) -> Path:
    """Where tables and runs of a scale go."""
    return Path(os.environ.get("ALIGN_REPRODUCE", "outputs/reproduce")) / scale
