from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from alignment.cli import app
from alignment.errors import UserError
from alignment.evaluation.compare import compare, differences, names
from alignment.evaluation.compare_page import shared_samples, write_comparison

from .fake_run import config, make_run, write_lines
from .test_report import HOSTILE, Page


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


def compared(folders: list[Path], file: Path) -> Page:
    found = compare(folders, Console(file=io.StringIO()))
    return Page(write_comparison(found, file).read_text(encoding="utf-8"))


def test_the_page_shows_what_the_terminal_does(tmp_path: Path) -> None:
    found = compared(two_runs(tmp_path), tmp_path / "page.html")
    text = " ".join(found.text.split())
    assert found.open == []
    for cell in (
        "1 · first",
        "2 · second",
        "seed 1",
        "-0.12 → 0.43",
        "+0.55 [+0.30, +0.80]",
        "1.23 ± 0.15",
        "loss.beta",
    ):
        assert cell in text
    assert "learning_rate" not in text
    assert "16 prompts are shared by both runs; none is left out." in text
    assert len(found.of("article")) == 16 and len(found.of("figure")) == 6  # chosen and rejected rewards are apart


def test_names_settings_and_answers_stay_text(tmp_path: Path) -> None:
    runs = []
    for place in range(2):
        run = make_run(tmp_path / f"{place}<img src=x onerror=alert(1)>", steps=1, recipe=HOSTILE[0], method=HOSTILE[5])
        write_lines(run / "samples.jsonl", [{"prompt": text, "after": text + str(place)} for text in HOSTILE])
        (run / "config.yaml").write_text(
            yaml.safe_dump({HOSTILE[1]: f"{HOSTILE[5]}{place}", "__proto__": {"x": place}})
        )
        runs.append(run)
    found = compared(runs, tmp_path / "page.html")
    assert found.open == [] and len(found.of("script")) == 2
    assert not found.of("img") and not found.of("a")
    assert f"{len(HOSTILE)} prompts are shared by both runs" in found.text
    assert HOSTILE[1] in found.text and "__proto__.x" in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", found.text)


def test_scores_of_different_rewards_are_not_held_against_each_other(tmp_path: Path) -> None:
    score = {"name": "other", "before": 0, "after": 1}
    runs = [make_run(tmp_path / "a", steps=1), make_run(tmp_path / "b", steps=1, score=score)]
    found = compared(runs, tmp_path / "page.html")
    assert "scored by different rewards" in found.text
    assert not any(change for row in json.loads(found.data)["samples"] for change in row["changes"])


def test_a_run_without_answers_or_metrics_is_named(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, steps=1) for name in ("a", "b", "c")]
    (runs[1] / "samples.jsonl").unlink()
    (runs[1] / "metrics.jsonl").unlink()
    text = compared(runs, tmp_path / "page.html").text
    assert "2 · b holds no answers." in text and "16 prompts are shared by both runs" in text
    for run in runs:
        (run / "samples.jsonl").unlink(missing_ok=True)
        (run / "metrics.jsonl").unlink(missing_ok=True)
    found = compared(runs, tmp_path / "page.html")
    assert not found.of("script") and not found.of("article") and not found.of("figure")


def test_one_run_is_shown_alone(tmp_path: Path) -> None:
    found = compared([make_run(tmp_path / "only", steps=1)], tmp_path / "page.html")
    assert "Answers after training" in found.text and "Settings that differ" not in found.text
    assert not found.of("del") and not found.of("ins")


def test_shared_prompts_are_matched_one_by_one() -> None:
    first = [{"prompt": text, "after": f"1{place}"} for place, text in enumerate("abba")]
    second = [{"prompt": text, "after": f"2{place}"} for place, text in enumerate("bcab")]
    shared, left_out = shared_samples([first, second])
    assert [[row["after"] for row in rows] for rows in shared] == [["10", "22"], ["11", "20"], ["12", "23"]]
    assert left_out == [1, 1]  # the second a, and c
    assert shared_samples([]) == ([], [])
    assert shared_samples([first, []]) == ([], [4, 0])


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", steps=1)
    done = CliRunner().invoke(app, ["compare", str(run), "--html", str(tmp_path / "page.html")])
    assert done.exit_code == 0 and "page.html" in done.output
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_is_written_where_it_can_be(tmp_path: Path) -> None:
    found = compare([make_run(tmp_path / "a", steps=1)], Console(file=io.StringIO()))
    with pytest.raises(UserError, match=r"cannot write .*page\.html: No such file or directory"):
        write_comparison(found, tmp_path / "nowhere" / "page.html")
