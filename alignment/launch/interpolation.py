"""`${…}` in settings, without the environment: what a setting becomes is written down, and a key must not be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from alignment.errors import UserError


@contextmanager
def without_environment() -> Iterator[None]:
    """Within it, `${oc.env:NAME}` is refused, however it is written."""

    def refuse(name: object, default: object = None) -> NoReturn:
        raise UserError(
            f"${{oc.env:{name}}}: settings do not read the environment, since they are written into the run folder; "
            "write the value, or let the shell fill it in on the command line"
        )

    OmegaConf.register_new_resolver("oc.env", refuse, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
