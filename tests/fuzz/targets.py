"""All targets, in the order of the table in docs/reliability.md."""

from __future__ import annotations

from tests.fuzz import asked_targets, config_targets, data_targets, run_targets
from tests.fuzz.harness import Target

TARGETS: tuple[Target, ...] = (
    *data_targets.TARGETS,
    *asked_targets.TARGETS,
    *config_targets.TARGETS,
    *run_targets.TARGETS,
)
BY_NAME = {target.name: target for target in TARGETS}
