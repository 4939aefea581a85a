"""Every target on a few inputs; `python scripts/fuzz.py` tries as many as there is time for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import SECRET, Broken, Target, attempt
from tests.fuzz.targets import TARGETS


def tried(target: Target, inputs: int) -> None:
    @settings(
        max_examples=inputs, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(target.inputs)
    def holds(value: Any) -> None:
        attempt(target, value)

    holds()


@pytest.mark.parametrize("target", [t for t in TARGETS if not t.slow], ids=lambda target: target.name)
def test_a_result_or_the_toolkits_own_error(target: Target) -> None:
    tried(target, 4)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_same_of_more_inputs(target: Target) -> None:
    tried(target, 8 if target.slow else 60)


def harness(check: Any) -> Target:
    return Target("one", "none", st.just(0), check)


class _Runs:
    def __reduce__(self) -> Any:
        return os.getpid, ()


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (lambda value, folder: Path(folder.parent / "outside.txt").write_text("x"), "outside.txt"),
        (lambda value, folder: os.system("true"), "os.system"),
        (lambda value, folder: pickle.loads(pickle.dumps(_Runs())), "pickle.find_class"),
        (lambda value, folder: os.environ["PLANTED"], "gave away"),
        (lambda value, folder: exec(compile("1", str(folder / "evil.py"), "exec")), "ran"),
    ],
)
def test_the_harness_sees_what_is_done(check: Any, says: str) -> None:
    try:
        with pytest.raises(Broken, match=says):
            attempt(harness(check), 0)
    finally:
        Path(os.path.realpath("/tmp"), "outside.txt").unlink(missing_ok=True)
    assert "PLANTED" not in os.environ and SECRET


def test_other_exceptions_come_through() -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(harness(lambda value, folder: 1 // value), 0)
    with pytest.raises(Broken, match="does not end"):
        import tests.fuzz.harness as module

        before, module.SECONDS = module.SECONDS, 0.05
        try:
            attempt(harness(lambda value, folder: [None for _ in iter(int, 1)]), 0)
        finally:
            module.SECONDS = before
