"""From a command line to a RunConfig: Hydra composes schema, groups, recipe and overrides, in that order.

Recipes are the files of recipes/, registered as the Hydra group `recipe` with the package `_global_`. Hydra's runtime
is not used: no directory is changed, no folder written, no logging configured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignment.config import LOSS_MODIFIERS, RunConfig
from alignment.config_check import check_sources, check_values
from alignment.errors import UserError, nearest
from alignment.feedback.settings import named_feedback
from alignment.launch import mistakes
from alignment.launch.assets import SUFFIXES, Catalogue, catalogue, load_yaml
from alignment.launch.interpolation import without_environment

PACKAGE_HEADER = re.compile(r"^#\s*@package\s+(\S+)\s*$", re.MULTILINE)


@dataclass
class Composer:
    """One command line's view of the configuration: what is registered, and how overrides become a run."""

    files: Catalogue

    @classmethod
    def create(cls, config_dir: str | Path | None = None) -> Composer:
        """Registers the schema, the defaults list, every group file and every recipe (UserError for a broken file)."""
        files = catalogue(config_dir)
        store = ConfigStore.instance()
        store.store(name="schema", node=RunConfig)
        store.store(name="config", node=load_yaml(files.primary))
        for group, options in files.groups.items():
            for name, path in options.items():
                node = load_yaml(path)  # first, since it says so where the file is no text
                header = PACKAGE_HEADER.search(path.read_text(encoding="utf-8"))
                store.store(group=group, name=name, node=node, package=header.group(1) if header else None)
        for name, path in files.recipes.items():
            _register_recipe(name, path)
        return cls(files)

    def tree(self, overrides: Sequence[str]) -> DictConfig:
        """The composed configuration, interpolations unresolved; what `--cfg job` prints.

        Raises:
            UserError: no recipe, or an override or a file that does not fit the schema.
        """
        with _hydra():
            parsed = [self._settled(line) for line in overrides]
            lines = [line for override in parsed for line in self._lines(override, parsed)]
            if not any(override.key_or_group == "recipe" and override.value() for override in parsed):
                resumed = next((o.value() for o in parsed if o.key_or_group == "resume" and o.value()), None)
                if resumed is None:
                    raise mistakes.no_recipe(self.files.recipes)
                return _stored(str(resumed), overrides)
            try:
                tree = compose("config", lines)
            except (HydraException, OmegaConfBaseException) as error:
                raise mistakes.explain(error, lines, self._known_keys(lines), self.files) from error
        mistakes.refuse_unknown_keys(tree)
        _name_model(tree)
        return tree

    def config(self, overrides: Sequence[str]) -> RunConfig:
        """The checked configuration of one run, interpolations resolved. Raises UserError like `tree`."""
        tree = self.tree(overrides)
        try:
            with without_environment():
                config = OmegaConf.to_object(tree)
        except OmegaConfBaseException as error:
            raise mistakes.unresolved(error) from error
        assert isinstance(config, RunConfig)
        check_values(config)
        check_sources(config)
        return config

    def jobs(self, overrides: Sequence[str]) -> list[list[str]]:
        """The override lists of a sweep: the product of every `key=a,b` or `key=range(…)`, the last key fastest."""
        jobs: list[list[str]] = [[]]
        with _hydra():
            for line in overrides:
                choices = _choices(parse(line))
                jobs = [[*job, choice] for job in jobs for choice in choices]
        return jobs

    def _settled(self, line: str) -> Override:
        """One parsed override, checked for what Hydra would say less clearly."""
        override = parse(line)
        key, value = override.key_or_group, override.value()
        if override.is_hydra_override() or key == "hydra":
            raise UserError(
                f"{line}: Hydra's own settings have no effect here; output_dir=FOLDER chooses the run folder"
            )
        if override.is_sweep_override():
            raise UserError(f"{line} names several values: add -m to run each, or write {key}=[…] for a list")
        if override.package is None and (key == "recipe" or key in self.files.groups):
            if override.is_add() or override.is_force_add():
                raise UserError(f"{line}: write {line.lstrip('+')}, without the +")
            if not override.is_delete() and value is not None:
                self._check_option(key, value)
        return override

    def _check_option(self, group: str, value: Any) -> None:
        """Refuses an option that the group does not have; a recipe may also be a file, feedback also that or a kind."""
        options = self.files.options(group)
        if isinstance(value, str) and value in options:
            return
        if group == "recipe" and isinstance(value, str) and (value.endswith(SUFFIXES) or "/" in value):
            path = Path(value).expanduser()
            if not path.is_file():
                siblings = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
                raise UserError(f"recipe={value}: no such file ({nearest(value, [*siblings, *options])})")
            self.files.own[_file_option(value)] = path
            _register_recipe(_file_option(value), path)
            return
        if group == "feedback" and isinstance(value, str):
            node = named_feedback(value, options)
            ConfigStore.instance().store(group="feedback", name=_file_option(value), node=node)
            return
        raise mistakes.wrong_option(group, value, options)

    def _lines(self, override: Override, all_of_them: Sequence[Override]) -> Iterator[str]:
        """The override as Hydra gets it, with what it implies: one's own data replaces the whole data group."""
        value = override.value()
        if override.key_or_group == "data.path" and not any(o.key_or_group == "data" for o in all_of_them):
            yield f"data={value if isinstance(value, str) and value in self.files.groups['data'] else 'custom'}"
        key = override.key_or_group
        if key in self.files.groups and value is None and not override.is_delete():
            yield f"{key}=[]"  # none of the group's files: Hydra knows no null here
        elif key in ("recipe", "feedback") and isinstance(value, str) and value not in self.files.options(key):
            yield f"{key}={_file_option(value)}"
        elif key in {f"loss.{name}" for name in LOSS_MODIFIERS} or key.startswith(("feedback.", "pit.stages.")):
            # Beside any loss, so no loss's file lists it; of feedback, a setting that its file leaves at its default.
            # Of a stage, any setting of a run: its names are checked where the stage's settings are made.
            yield f"++{str(override.input_line).lstrip('+')}"
        else:
            assert override.input_line is not None
            yield override.input_line

    def _known_keys(self, lines: Sequence[str]) -> list[str]:
        """The dotted keys that may be overridden, of this recipe where it composes, else of the schema alone."""
        groups = [line for line in lines if line.split("=")[0] in {"recipe", *self.files.groups}]
        try:
            tree = compose("config", groups)
        except (HydraException, OmegaConfBaseException):
            tree = OmegaConf.structured(RunConfig)
        return mistakes.known_keys(tree)


def _stored(resume: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration that the run to resume wrote down, with plain key=value overrides on top."""
    folder = Path(resume).expanduser()
    places = [place / "config.yaml" for place in (folder, *list(folder.parents)[:2])]  # a run, or a checkpoint in one
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(f"resume={resume}: no run folder with a config.yaml there; give one, or the recipe again")
    try:
        stored = {**load_yaml(file), "allow": []}
        tree = OmegaConf.merge(OmegaConf.structured(RunConfig), stored, OmegaConf.from_dotlist([*overrides]))
    except OmegaConfBaseException as error:
        raise UserError(f"{file}, with {' '.join(overrides)}: {' '.join(str(error).split())[:200]}") from error
    assert isinstance(tree, DictConfig)
    tree.output_dir = None  # the folder of `resume` is gone on with
    return tree


@contextmanager
def _hydra() -> Iterator[None]:
    with initialize(config_path=None, job_name="align", version_base="1.3"), without_environment():
        yield


def parse(line: str) -> Override:
    """One override of the command line, with Hydra's grammar; a value that holds `=` need not be quoted.

    Raises:
        UserError: broken syntax.
    """
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(config_loader=hydra.config_loader() if hydra.is_initialized() else None)
    try:
        return parser.parse_overrides([line])[0]
    except HydraException as error:
        key, _, value = line.partition("=")
        if "=" in value and not set(value) & set("'\"[]{}()$,"):  # a path such as split=train/part.parquet
            try:
                return parser.parse_overrides([f"{key}='{value}'"])[0]
            except HydraException:
                pass
        raise mistakes.broken_override(line, error) from error


def _choices(override: Override) -> list[str]:
    """`key=a,b` -> [`key=a`, `key=b`]; a plain override is itself."""
    if not override.is_sweep_override():
        assert override.input_line is not None
        return [override.input_line]
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: an interval cannot be listed; name the values, {override.key_or_group}=a,b"
        )
    choices = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    if not choices:
        raise UserError(f"{override.input_line}: no value to sweep over")
    return choices


def _file_option(value: str) -> str:
    """The name under which a recipe file outside recipes/ is registered: its path, since two files may share a stem."""
    return "file-" + re.sub(r"[^A-Za-z0-9]+", "-", str(Path(value).expanduser().resolve()))


def _register_recipe(option: str, path: Path) -> None:
    node = load_yaml(path)
    if "allow" in node:
        raise UserError(f"{path}: allow stands on the command line alone: it says which Python a recipe may run")
    node["recipe"] = path.stem
    defaults = node.setdefault("defaults", [])
    # A recipe with data of its own must not keep the held-out pairs of the default data set.
    own_data = isinstance(node.get("data"), dict) and node["data"].get("path") is not None
    if own_data and not any("override /data" in entry for entry in defaults if isinstance(entry, dict)):
        defaults.append({"override /data": "custom"})
    # Nor one with a loss of its own the parameters of the default loss.
    own_loss = isinstance(node.get("loss"), dict) and not {"name", "terms"}.isdisjoint(node["loss"])
    if own_loss and not any("override /loss" in entry for entry in defaults if isinstance(entry, dict)):
        defaults.append({"override /loss": None})
    # Feedback of its own becomes an option of the group, so that feedback=NAME on the command line replaces all of it.
    own_feedback = isinstance(node.get("feedback"), dict) and "name" in node["feedback"]
    if own_feedback and not any("override /feedback" in entry for entry in defaults if isinstance(entry, dict)):
        ConfigStore.instance().store(group="feedback", name=f"of-{option}", node=node.pop("feedback"))
        defaults.append({"override /feedback": f"of-{option}"})
    if not defaults:
        del node["defaults"]
    ConfigStore.instance().store(group="recipe", name=option, node=OmegaConf.create(node), package="_global_")


def _name_model(tree: DictConfig) -> None:
    """Gives a model without a name the one it is asked for by: a built-in's name, a hub id, or a folder's last part."""
    model = OmegaConf.to_container(tree.model, resolve=False)
    assert isinstance(model, dict)
    path = model["path"]
    if model["name"] == "custom" and isinstance(path, str) and "${" not in path:
        tree.model.name = Path(path).name if Path(path).expanduser().exists() else path
