"""Feedback on a command line: `feedback=NAME feedback.key=value` -> the mapping that `build_feedback` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignment.errors import UserError, nearest, unknown
from alignment.feedback.build import KINDS
from alignment.feedback.checks import refuse_secrets
from alignment.launch.assets import SUFFIXES, catalogue, load_yaml
from alignment.launch.interpolation import without_environment


def feedback_settings(arguments: Sequence[str], config_dir: str | Path | None = None) -> dict[str, Any]:
    """The settings that the words `feedback=WHAT` and `feedback.key=value` describe, later words over earlier ones.

    WHAT is a file of configs/feedback by its name (also of `config_dir`/feedback), a path/to/file.yaml, a kind, or
    one's own path/to/file.py:thing; so is the value of `feedback.of`. Values are read as YAML, so lists and sections
    work.

    Raises:
        UserError: another word, no such feedback, or a value that cannot be read.
    """
    options = catalogue(config_dir).groups.get("feedback", {})
    settings = OmegaConf.create({})
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals or key.split(".")[0] != "feedback":
            raise UserError(f"'{word}': write feedback=NAME or feedback.key=value")
        try:
            if key == "feedback":
                settings = OmegaConf.create(named_feedback(value, options))
            elif set(key.split(".")[1:]) == {"of"} and value[:1] not in ("{", "["):
                OmegaConf.update(settings, key.partition(".")[2], named_feedback(value, options), merge=False)
            else:
                merged = OmegaConf.merge(settings, OmegaConf.from_dotlist([word.removeprefix("feedback.")]))
                assert isinstance(merged, DictConfig)
                settings = merged
        except OmegaConfBaseException as error:
            raise UserError(f"{word}: {str(error).splitlines()[0]}") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # also a number or date that YAML's rules allow
            raise UserError(f"{word}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    try:
        with without_environment():
            content = OmegaConf.to_container(settings, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"feedback: {' '.join(str(error).split())[:200]}") from error
    assert isinstance(content, dict)
    refuse_secrets(content, "feedback")
    if "name" not in content:
        raise UserError(f"no feedback: give feedback=NAME ({nearest('', [*options, *KINDS])})")
    return {str(key): value for key, value in content.items()}


def named_feedback(name: str, options: Mapping[str, Path]) -> dict[str, Any]:
    """The settings behind one word: a file among `options`, a YAML file, a kind, or path/to/file.py:thing.

    Raises:
        UserError: none of these; the nearest names are in it.
    """
    if name in options:
        return load_yaml(options[name])
    if name.endswith(SUFFIXES):
        file = Path(name).expanduser()
        if not file.is_file():
            siblings = [str(path) for path in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
            raise UserError(f"feedback={name}: no such file ({nearest(name, [*siblings, *options])})")
        return load_yaml(file)
    if name in KINDS or ":" in name:
        return {"name": name}
    own = "your own: feedback=path/to/FILE.yaml or path/to/FILE.py:THING"
    raise UserError(f"{unknown('feedback', name, [*options, *KINDS])}\n{own}")
