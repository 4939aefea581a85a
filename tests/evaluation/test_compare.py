from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from alignment.errors import UserError
from alignment.evaluation.compare import compare, differences, names

from .fake_run import config, make_run


def printed(folders: list[Path], width: int = 100) -> str:
    file = io.StringIO()
    compare(folders, Console(file=file, width=width))
    return file.getvalue()


def two_runs(folder: Path) -> list[Path]:
    first = make_run(folder / "first", steps=1)
    second = make_run(folder / "second", seed=1, steps=1, fluency={"before": -1, "after": -3}, kl=None)
    changed = config(1)
    changed["loss"]["beta"] = 0.5
    (second / "config.yaml").write_text(yaml.safe_dump(changed))
    return [first, second]


@pytest.mark.parametrize("width", [80, 100])
def test_runs_are_shown_with_the_settings_that_differ(tmp_path: Path, width: int) -> None:
    text = printed(two_runs(tmp_path), width)
    for cell in ("first", "second", "smollm2-135m", "seed 1", "-0.12 → 0.43", "+0.55 [+0.30, +0.80]", "1.23 ± 0.15"):
        assert cell in text
    lines = [line.split() for line in text.splitlines()]
    assert ["loss.beta", "0.1", "0.5"] in lines
    assert ["seed", "0", "1"] in lines
    assert "learning_rate" not in text  # the same in both
    assert "output_dir" not in text
    assert "…" not in text


def test_equal_runs_say_so(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, steps=1) for name in ("a", "b")]
    assert "The settings are the same." in printed(runs)


def test_the_rows_are_returned(tmp_path: Path) -> None:
    runs = compare(two_runs(tmp_path), Console(file=io.StringIO()))
    assert [run["folder"].name for run in runs] == ["first", "second"]
    assert runs[0]["summary"]["score"]["difference"] == 0.55
    assert runs[1]["config"]["loss.beta"] == "0.5"


def test_a_column_that_no_run_has_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"recipe": "[bold]x", "pairs": {"accuracy": 0.5}}))
    text = printed([tmp_path])
    assert "accuracy" in text
    assert "KL" not in text
    assert "[bold]x" in text
    assert "no config.yaml" in text


def test_a_run_without_configuration_differs_in_nothing_known() -> None:
    assert differences([{"a": "1", "b": "2"}, {}, {"a": "1"}]) == {"b": ["2", None, None]}
    assert differences([{"a": "1", "output_dir": "x"}, {"a": "1", "output_dir": "y"}]) == {}


def test_folders_are_named_by_what_differs(tmp_path: Path) -> None:
    assert names([tmp_path / "dpo" / "a", tmp_path / "ipo" / "a"]) == ["dpo/a", "ipo/a"]
    assert names([tmp_path / "dpo" / "a", tmp_path / "dpo" / "b"]) == ["a", "b"]
    assert names([tmp_path / "a", tmp_path / "a"]) == ["a", "a"]


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    first, _ = two_runs(tmp_path)
    with pytest.raises(UserError, match=r"no run folder .*secnd\nfinished runs: first, second \(in "):
        printed([first, tmp_path / "secnd"])
    with pytest.raises(UserError, match="give one or more run folders"):
        printed([])
