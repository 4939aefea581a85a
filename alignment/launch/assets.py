"""Where the recipes and configuration groups lie, and what there is. Plain YAML only, so that --help stays quick."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import alignment
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.yaml_files import read_yaml

SUFFIXES = (".yaml", ".yml")
FREE_FORM = ("loss", "feedback")  # sections whose keys depend on a name, and are checked where the thing is built


@dataclass
class Catalogue:
    """The YAML files that a command line can name."""

    primary: Path  # the defaults list that every run starts from
    recipes: dict[str, Path] = field(default_factory=dict)
    groups: dict[str, dict[str, Path]] = field(default_factory=dict)  # group -> option -> file
    own: dict[str, Path] = field(default_factory=dict)  # recipe files named by path -> file

    def options(self, group: str) -> dict[str, Path]:
        """The files of one group; `recipe` counts as a group."""
        return self.recipes if group == "recipe" else self.groups[group]


def assets_root() -> Path:
    """The folder that holds recipes/ and configs/: the checkout, or the copy inside the installed package."""
    package = Path(alignment.__file__).resolve().parent
    shipped = package / "_assets"
    root = shipped if shipped.is_dir() else package.parent
    if not (root / "configs" / "config.yaml").is_file():
        raise UserError(
            f"the configuration files are missing: no configs/config.yaml in {root}. Install the package again"
        )
    return root


def sections() -> list[str]:
    """The top-level sections of a run that can be a group of files: model, data, peft, …"""
    return [
        f.name
        for f in dataclasses.fields(RunConfig)
        if f.name in FREE_FORM or dataclasses.is_dataclass(f.default_factory)
    ]


def catalogue(config_dir: str | Path | None = None) -> Catalogue:
    """Everything shipped, and over it the recipes/ and group folders of `config_dir` (UserError if it is no folder)."""
    root = assets_root()
    found = Catalogue(primary=root / "configs" / "config.yaml", recipes=_yaml_files(root / "recipes"))
    for group in sections():
        if options := _yaml_files(root / "configs" / group):
            found.groups[group] = options
    if config_dir is not None:
        own = Path(config_dir)
        if not own.is_dir():
            raise UserError(f"--config-dir {config_dir}: no such folder")
        found.recipes.update({**_yaml_files(own / "recipe"), **_yaml_files(own / "recipes")})
        for group in sections():
            if options := _yaml_files(own / group):
                found.groups.setdefault(group, {}).update(options)
    return found


def _yaml_files(folder: Path) -> dict[str, Path]:
    """Name -> file for the YAML files of one folder, by name."""
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()}


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain mapping, read by OmegaConf (which takes 4e-5 for a number), interpolations kept."""
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = read_yaml(path, lambda text: OmegaConf.load(io.StringIO(text)))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    mapping = OmegaConf.to_container(content) if isinstance(content, DictConfig) else None
    if not isinstance(mapping, dict) or not mapping:
        raise UserError(f"{path}: a mapping of keys to values is needed, such as `description: …`")
    return {str(key): value for key, value in mapping.items()}


def description(path: Path) -> str:
    """The `description` of a recipe, on one line; never an error, since --help must work with a broken recipe about."""
    try:
        content = read_yaml(path)
    except UserError:
        return "(cannot be read)"
    text = content.get("description", "") if isinstance(content, dict) else ""
    return " ".join(str(text).split())
