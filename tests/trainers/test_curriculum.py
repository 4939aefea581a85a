"""Whose answers are improved in a phase, and when that changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.config import PITConfig, RunConfig
from alignment.config_check import check_values
from alignment.errors import UserError
from alignment.trainers.curriculum import Curriculum, plateau


def turns(phases: int, **settings: object) -> list[tuple[bool, int]]:
    curriculum = Curriculum.of(PITConfig(**settings), phases, 4.0)  # type: ignore[arg-type]
    return [curriculum.turn(phase) for phase in range(phases)]


def test_by_share_and_by_epoch() -> None:
    assert turns(5, switch_at=0.4) == [(False, 0), (False, 1), (True, 0), (True, 1), (True, 2)]
    assert turns(6, switch="epoch", switch_at=1) == [(False, n) for n in range(4)] + [(True, 0), (True, 1)]
    assert turns(3, switch_at=0.01)[0] == (False, 0)  # never none of the data's


def test_the_ablations() -> None:
    assert turns(3, references="data") == [(False, 0), (False, 1), (False, 2)]
    assert turns(3, references="policy") == [(True, 0), (True, 1), (True, 2)]
    assert turns(5, references="mixed") == [(False, 0), (True, 0), (False, 1), (True, 1), (False, 2)]


def test_plateau_by_hand() -> None:
    # The best is 2 in phase 1; phases 2 and 3 do not get above it, so the next stage begins with phase 4.
    assert plateau([1.0, 2.0, 1.5, 2.0, 9.0], 2) == 4
    assert plateau([1.0, 2.0, 1.5], 2) is None and plateau([], 1) is None
    assert plateau([1.0, 2.0, 1.5, 3.0, 2.0, 2.5], 2) == 6
    curriculum = Curriculum.of(PITConfig(switch="plateau", switch_at=2), 10, 4.0)
    seen = []
    for phase, gap in enumerate([1.0, 2.0, 1.5, 2.0, 0.0, 5.0]):
        seen.append(curriculum.turn(phase))
        curriculum.note(phase, gap)
    assert seen == [(False, 0), (False, 1), (False, 2), (False, 3), (True, 0), (True, 1)]
    assert curriculum.turn(6) == (True, 2)  # and it stays so, however the gap goes on


def test_a_phase_that_is_made_again_counts_once() -> None:
    curriculum = Curriculum.of(PITConfig(switch="plateau", switch_at=1), 10, 4.0)
    for phase, gap in ((0, 1.0), (1, 2.0), (1, 2.0), (0, 1.0), (1, 3.0)):
        curriculum.note(phase, gap)
    assert curriculum.gaps == [1.0, 3.0] and curriculum.turn(2) == (False, 2)


@given(st.lists(st.floats(-10, 10), max_size=12), st.integers(1, 4))
def test_more_phases_never_move_the_plateau(gaps: list[float], patience: int) -> None:
    found = [plateau(gaps[:count], patience) for count in range(len(gaps) + 1)]
    known = [phase for phase in found if phase is not None]
    assert len(set(known)) <= 1
    if known:
        begin = known[0]
        best = max([-float("inf"), *gaps[: begin - patience]])
        assert all(gap <= best for gap in gaps[begin - patience : begin])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"references": "both"}, "pit.references=both"),
        ({"switch": "step"}, "pit.switch=step"),
        ({"switch_at": 0}, "pit.switch_at=0: must be greater than 0"),
        ({"switch_at": 1.5}, "pit.switch_at=1.5: with pit.switch=share it is a share, below 1"),
        ({"max_reference_length": 0}, "pit.max_reference_length=0: must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        check_values(RunConfig(pit=PITConfig(**settings)))  # type: ignore[arg-type]
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)
