"""What makes a run's settings: recipes, groups, overrides, the config.yaml of a run that goes on, feedback's words."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path

import yaml
from hypothesis import strategies as st
from omegaconf import OmegaConf

from alignment.config import RunConfig
from alignment.feedback.settings import feedback_settings
from alignment.imports import only_named_on
from alignment.launch.assets import assets_root, catalogue, description, load_yaml
from alignment.launch.compose import Composer
from alignment.launch.entry import parse_arguments
from tests.fuzz.asked_targets import _yaml
from tests.fuzz.harness import Target
from tests.fuzz.hostile import bomb, mutated, mutated_bytes, texts, values

_ROOT = assets_root()
RECIPES = [file.read_bytes() for file in sorted((_ROOT / "recipes").glob("*.yaml"))]
PARSED = [yaml.safe_load(recipe) for recipe in RECIPES]
FEEDBACK = [file.read_bytes() for file in sorted((_ROOT / "configs" / "feedback").glob("*.yaml"))]
# A module that would betray itself: only the command line may say that it is run.
EVIL = "open('ran', 'w').close()\nNAME = DESCRIPTION = 'evil'\n\n\ndef run(*a, **k): ...\n\n\ndef parse(row): ...\n"
NAMED = [
    *({"loss": {"name": name}} for name in ("evil.py:run", "evil:run", "os:system", "subprocess:Popen")),
    *({"feedback": {"name": name}} for name in ("evil.py:run", "evil:run", "builtins:eval")),
    *({"data": {"path": "everyday", "format": name}} for name in ("evil.py", "./evil.py")),
    {"evaluation": {"score": {"name": "both_orders", "of": {"name": "evil.py:run"}}}},
    {"_target_": "evil.run", "loss": {"_target_": "os.system", "name": "sigmoid"}},
    {"model": {"path": "${oc.env:PLANTED}", "trust_remote_code": True}, "description": "${oc.env:PLANTED}"},
    {"description": "${${x}.env:PLANTED}", "x": "oc"},
    {"allow": ["evil.py"], "loss": {"name": "evil.py:run"}},
]
KEYS = sorted(
    {f"{section}.{key}" for section, keys in asdict(RunConfig()).items() if isinstance(keys, dict) for key in keys}
)
KEYS += [
    "recipe",
    "model",
    "data",
    "loss",
    "peft",
    "feedback",
    "output_dir",
    "seed",
    "hydra.run.dir",
    "+x",
    "~loss",
    "loss@x",
]


@functools.cache
def _composer() -> Composer:
    """The toolkit's own files, read once."""
    return Composer.create()


def _settled(overrides: list[str]) -> object:
    with only_named_on(overrides, "name {place}"):
        config = _composer().config(overrides)
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _recipe(content: bytes, folder: Path) -> object:
    Path("evil.py").write_text(EVIL)
    Path("mine.yaml").write_bytes(content)
    description(Path("mine.yaml"))
    return _settled(["recipe=mine.yaml", "model=tiny"])


def _overrides(value: list[str], folder: Path) -> object:
    arguments = parse_arguments(["recipe=dpo", *value])
    _composer().jobs(arguments.overrides)
    with only_named_on(value, "name {place}"):
        return bool(_composer().config(arguments.overrides))


def _stored(content: bytes, folder: Path) -> object:
    """resume=: the configuration that a run folder holds."""
    Path("evil.py").write_text(EVIL)
    Path("run").mkdir()
    Path("run/config.yaml").write_bytes(content)
    return _settled(["resume=run"])


def _group(value: tuple[str, bytes], folder: Path) -> object:
    """--config-dir with a group's file in it."""
    group, content = value
    Path("evil.py").write_text(EVIL)
    (Path("own") / group).mkdir(parents=True)
    (Path("own") / group / "mine.yaml").write_bytes(content)
    catalogue("own")
    words = ["recipe=dpo", "model=tiny", f"{group}=mine"]
    with only_named_on(words, "name {place}"):
        config = Composer.create("own").config(words)
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _feedback_words(value: list[str], folder: Path) -> object:
    return feedback_settings(["feedback=length", *value])


def _feedback_file(content: bytes, folder: Path) -> object:
    Path("mine.yaml").write_bytes(content)
    return feedback_settings(["feedback=mine.yaml"])


def _plain_yaml(content: bytes, folder: Path) -> object:
    Path("mine.yaml").write_bytes(content)
    return load_yaml(Path("mine.yaml"))


STORED = [
    yaml.safe_dump({**asdict(RunConfig()), "model": {"path": "tiny"}, "data": {"path": "everyday"}, **more}).encode()
    for more in [{}, *NAMED[:3]]
]
words = st.tuples(st.sampled_from(KEYS) | texts, st.sampled_from(["=", "", "==", "=[", "={", "='"]), texts).map("".join)
named = mutated([{**PARSED[0], **part} for part in NAMED] + PARSED).map(_yaml)
TARGETS = (
    Target("YAML", "configuration", mutated_bytes([*RECIPES, bomb()]), _plain_yaml),
    Target("YAML: any value", "configuration", values.map(_yaml), _plain_yaml),
    Target("recipe: mutated text", "configuration", mutated_bytes([*RECIPES, bomb()]), _recipe, slow=True),
    Target("recipe: mutated values", "configuration", named, _recipe, slow=True),
    Target("overrides", "configuration", st.lists(words, min_size=1, max_size=3), _overrides, slow=True),
    Target("resume: config.yaml", "configuration", mutated_bytes([*STORED, bomb()]), _stored, slow=True),
    Target(
        "group files",
        "configuration",
        st.tuples(
            st.sampled_from(["loss", "data", "model", "feedback", "peft", "training"]), named | mutated_bytes(FEEDBACK)
        ),
        _group,
        slow=True,
    ),
    Target(
        "feedback: words",
        "configuration",
        st.lists(
            st.tuples(st.sampled_from(["feedback", "feedback.of", "feedback.target", "feedback.a.b"]), texts).map(
                "=".join
            ),
            max_size=3,
        ),
        _feedback_words,
        slow=True,
    ),
    Target("feedback: files", "configuration", mutated_bytes([*FEEDBACK, bomb()]), _feedback_file, slow=True),
)
