from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from alignment.errors import UserError
from alignment.evaluation.files import json_lines, write_atomically
from alignment.evaluation.summary import (
    read_config,
    read_samples,
    read_summary,
    render_samples,
    render_summary,
    write_summary,
)

from .fake_run import make_run, sample, summary


def printed(width: int = 100, **console: Any) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, **console), file


def test_a_summary_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_summary(tmp_path, summary(0, 48))
    assert read_summary(tmp_path) == summary(0, 48)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]  # no temporary file is left


def test_numbers_become_plain_json_and_the_time_is_added(tmp_path: Path) -> None:
    written = {"steps": np.int64(3), "kl": {"mean": np.float32(0.5), "se": float("nan")}, "ci": (1, 2), "p": Path("a")}
    text = write_summary(tmp_path, written).read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found.pop("finished").endswith("+00:00")
    assert found == {"steps": 3, "kl": {"mean": 0.5, "se": None}, "ci": [1, 2], "p": "a"}


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_summary(tmp_path, {"steps": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*summary\.json: No space left"):
        write_summary(tmp_path, {"steps": 2})
    assert read_summary(tmp_path)["steps"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_text_that_cannot_be_encoded_is_written_escaped(tmp_path: Path) -> None:
    assert write_atomically(tmp_path / "a.txt", "x\ud800").read_bytes() == b"x\\ud800"


def test_a_missing_run_names_the_nearest(tmp_path: Path) -> None:
    for name in ("2026-01-02_03-04-05", "2026-01-02_09-00-00", "other", "unlike"):
        make_run(tmp_path / name, samples=0, steps=1)
    with pytest.raises(UserError, match=r"no run folder .*03-04-06\ndid you mean 2026-01-02_03-04-05"):
        read_summary(tmp_path / "2026-01-02_03-04-06")
    with pytest.raises(UserError, match=r"not a run folder.*\nruns in it: .*other, .*unlike"):
        read_summary(tmp_path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    make_run(tmp_path / "run", samples=0, steps=1)
    make_run(tmp_path / "done", samples=0, steps=1)
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"is not finished.* no checkpoint to continue from$"):
        read_summary(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(UserError, match=r"is not finished.*resume=.*run"):
        read_summary(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_broken_summary_is_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_summary(tmp_path)
    assert "summary.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_config_is_read_or_refused(tmp_path: Path) -> None:
    assert read_config(tmp_path) == {}
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"config\.yaml:\d+: not valid YAML"):
        read_config(tmp_path)


def test_json_lines_end_at_newlines_only_and_pass_over_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text('{"a": "x\u2028y"}\n[1]\n{"a": 2}\n{"a": 3', encoding="utf-8")
    assert list(json_lines(tmp_path / "samples.jsonl")) == [{"a": "x\u2028y"}, {"a": 2}]
    assert read_samples(tmp_path / "none") == []


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_table_shows_every_number_uncut(width: int) -> None:
    console, file = printed(width)
    render_summary(summary(0, 48), console)
    text = file.getvalue()
    for cell in (
        "-0.12",
        "0.43",
        "+0.55",
        "[+0.30, +0.80]",
        "-13.1",
        "71.0 %",
        "1.23 ± 0.15",
        "3 min 31 s",
        "3,140 MB",
    ):
        assert cell in text
    assert "the score rose" in " ".join(text.split())
    assert "drifted" not in text
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())


def test_a_fall_of_fluency_is_said_below_the_table() -> None:
    console, file = printed()
    render_summary({**summary(0, 48), "fluency": {"before": -1.0, "after": -3.2}}, console)
    assert "answers drifted from good English" in " ".join(file.getvalue().split())


def test_an_empty_summary_prints_no_more_than_its_title() -> None:
    console, file = printed()
    render_summary({}, console)
    assert "run on a model" in file.getvalue()


def test_samples_stand_side_by_side() -> None:
    console, file = printed()
    render_samples([sample(random.Random(0), index) for index in range(9)], console, shown=2)
    text = file.getvalue()
    assert text.count("before:") == text.count("after:") == 2
    line = next(line for line in text.splitlines() if "There are numerous" in line)
    assert "Put the stems" in line  # both answers begin on one line
    assert all(len(line) <= 100 for line in text.splitlines())


def test_model_text_is_data_for_the_terminal() -> None:
    console, file = printed(force_terminal=True, color_system="truecolor")
    hostile = {
        "prompt": "[bold]p[/bold]",
        "before": "[/nope] [link=x]y",
        "after": "\x1b[2J\x07\u202e:smile: a" + "b" * 9999,
    }
    render_samples([hostile], console)
    text = file.getvalue()
    assert "[bold]p[/bold]" in text
    assert "[/nope] [link=x]y" in text
    assert ":smile:" in text
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "<U+001B>" in text
    assert "characters)" in text  # cut, and said so
    assert text.count("\n") < 30


def test_a_sample_that_lacks_everything_is_still_shown() -> None:
    console, file = printed()
    render_samples([{}, {"before": None, "score_before": None}], console)
    assert file.getvalue().count("(empty)") == 3
