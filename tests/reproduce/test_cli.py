"""scripts/reproduce.py: the list, and bad input in one line."""

from __future__ import annotations

import pytest

from alignment.reproduce import cli
from alignment.reproduce.cli import main
from alignment.reproduce.tables import NAMES, table_named


def test_the_list_names_every_table_with_its_time(capsys: pytest.CaptureFixture) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for name in NAMES:
        assert name in printed and f"{table_named(name).minutes['small']:g} min" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no table: name one of dpo_sentiment"),
        (["p4o"], "unknown table 'p4o': did you mean p3o"),
        (["p3o", "--scale", "tiny"], "--scale tiny: known are smoke, small, paper"),
        (["p3o", "--seeds", "0,x"], "--seeds 0,x: whole numbers"),
        (["p3o", "--seeds", "-1"], "--seeds -1: whole numbers"),
        (["p3o", "--scale", "paper", "--seeds", "0"], "stand in the recipes' own commands"),
        (["p3o", "--sead", "0"], "No such option"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "reproduce", stopped)
    assert main(["p3o"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_table_says_what_it_takes(name: str) -> None:
    table = table_named(name)
    assert table.name == name and table.minutes["smoke"] < 3 and table.minutes["small"] <= 60
    assert len(table.seeds["small"]) == 3 and "(2" in table.paper
