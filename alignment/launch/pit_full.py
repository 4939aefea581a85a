"""The whole of PIT (2310.00898) in one folder: imitation, reward and gap models, the policy by RL, the improver by RL.

    1-policy     M_P(y_w | x)               sft       on the part sft
    1-improver   M_PIT(y_w | x, y_l)        pit_sft   on the part sft
    2-reward     r(x, y)                    reward    on the part reward, from 1-policy
    2-gap        r(x, y, y_ref)             pit_gap   on the part reward, from 1-improver
    3-policy     M_P by RL on 2-reward      p3o       on the part rl, from 1-policy
    3-improver   M_PIT by RL on 2-gap       pit       on the part rl, from 1-improver; improves 3-policy's answers

Each stage is a run of its own: the settings of the whole with those of `pit.stages.STAGE` over them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignment.config import RunConfig
from alignment.config_check import check_values
from alignment.errors import UserError, unknown
from alignment.evaluation.summary import read_samples
from alignment.evaluation.text import decimal, percent
from alignment.launch.interpolation import without_environment
from alignment.launch.stages import Stages
from alignment.models.loading import resolve

# pit.stages.NAME -> its folder
FOLDERS = {
    "policy": "1-policy",
    "improver": "1-improver",
    "reward": "2-reward",
    "gap": "2-gap",
    "policy_rl": "3-policy",
    "improver_rl": "3-improver",
}
METHODS = {"policy": "sft", "improver": "pit_sft", "reward": "reward", "gap": "pit_gap", "improver_rl": "pit"}
STARTS_FROM = {"reward": "policy", "gap": "improver", "policy_rl": "policy", "improver_rl": "improver"}
TOLD = ("score", "imitation", "ranking", "gaps", "improved", "pairs", "kl", "length")  # kept of each stage


def pit_full(stages: Stages) -> None:
    """Train all six, and show what the improver makes of held-out answers."""
    check(stages.config)
    runs = {name: settings(stages, name) for name in FOLDERS}  # all of them, before the first one trains
    rows = []
    for name, config in runs.items():
        summary = stages.train(FOLDERS[name], config)
        rows.append({"stage": FOLDERS[name], "method": summary["method"], "steps": summary["steps"]})
        rows[-1] |= {"seconds": summary["seconds"], **{key: summary[key] for key in TOLD if key in summary}}
        stages.say(told(rows[-1]))
    last = FOLDERS["improver_rl"]
    stages.finish({**summary, "stages": rows}, read_samples(stages.folder / last), [last])


def check(config: RunConfig) -> None:
    """Refuse what the stages would overrule, or lack."""
    if config.feedback:
        raise UserError(
            f"feedback={config.feedback.get('name')}: recipe=pit_full trains its own; with another give recipe=pit"
        )
    if config.pit.policy or config.peft.path:
        key = "pit.policy" if config.pit.policy else "peft.path"
        raise UserError(f"{key}: recipe=pit_full trains its own; start from another model with model.path")
    for name in config.pit.stages:
        if name not in FOLDERS:
            raise unknown("pit.stages", name, list(FOLDERS))
    resolve(config.model.path or "")


def settings(stages: Stages, name: str) -> RunConfig:
    """The run of a stage.

    Raises:
        UserError: a setting of pit.stages that is none of a run, or makes no sense.
    """
    whole, own = copy.deepcopy(stages.config), dict(stages.config.pit.stages.get(name) or {})
    whole.pit.stages = {}
    if "loss" in own:
        whole.loss = {}  # a stage's loss replaces the whole's, with all of its parameters
    try:
        with without_environment():
            config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(whole), own))
    except OmegaConfBaseException as error:
        raise UserError(f"pit.stages.{name}: {' '.join(str(error).split())[:200]}") from error
    loss = config.loss.get("name")
    config.method = METHODS.get(name) or {"p3o": "p3o", "ppo": "ppo"}.get(loss, "policy_gradient")
    config.recipe = f"{stages.config.recipe}, {FOLDERS[name]}"
    if name in STARTS_FROM:
        config.model.path = str(stages.folder / FOLDERS[STARTS_FROM[name]])
        config.model.revision = None
    if name == "policy_rl":
        config.feedback = {"name": "reward_model", "path": str(stages.folder / FOLDERS["reward"])}
    if name == "improver_rl":
        config.feedback = {"name": "gap_reward", "path": str(stages.folder / FOLDERS["gap"])}
        config.pit.policy = str(stages.folder / FOLDERS["policy_rl"])
    try:
        check_values(config)
    except UserError as error:
        raise UserError(f"stage {name}: {error}") from error
    return config


def told(row: Mapping[str, Any]) -> str:
    """One line on a stage."""
    line = f"{row['stage']}: {row['steps']} steps of {row['method']}"
    if "after" in row.get("ranking", {}):
        before, after = (percent(row["ranking"][side], 0) for side in ("before", "after"))
        line += f"; held-out pairs in order {before} → {after}"
    if "after" in row.get("score", {}):
        found = row["score"]
        line += f"; {found['name']} {decimal(found['before'])} → {decimal(found['after'])}"
    return line
