"""Where the recipes and configuration groups lie, and what there is. Plain YAML only, so that --help stays quick."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import alignment
from alignment.config import RunConfig
from alignment.errors import UserError

SUFFIXES = (".yaml", ".yml")


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
        f.name for f in dataclasses.fields(RunConfig) if f.name == "loss" or dataclasses.is_dataclass(f.default_factory)
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


def description(path: Path) -> str:
    """The `description` of a recipe, on one line; never an error, since --help must work with a broken recipe about."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return "(cannot be read)"
    text = content.get("description", "") if isinstance(content, dict) else ""
    return " ".join(str(text).split())
