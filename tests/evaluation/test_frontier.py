"""Frontiers against arithmetic by hand, brute force and closed forms; and what is said where there is none."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from alignment.errors import UserError
from alignment.evaluation.frontier import Frontiers, area, frontiers, line, non_dominated
from alignment.evaluation.frontier_plot import draw
from alignment.evaluation.frontier_report import COLUMNS, notes, render, to_csv, to_dict
from alignment.evaluation.frontier_runs import Run, Sweep, Value, read_sweep

from ..commands import align, refused
from .fake_run import config, make_run

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


def run(group: str, setting: str, x: float, y: float, seed: int = 0, **more: Any) -> Run:
    errors = more.pop("se", 0.0)
    return Run(f"{group}-{setting}-{seed}", group, setting, str(seed), Value(x, errors), Value(y, errors), **more)


def sweep(*runs: Run) -> Sweep:
    return Sweep(list(runs), "kl", "score")


def printed(found: Frontiers) -> str:
    file = io.StringIO()
    render(found, Console(file=file, width=120))
    return file.getvalue()


def test_which_points_are_beaten_by_hand() -> None:
    #      the best start; beaten by it; more KL, more reward; as much reward for more KL; equal to the third
    x, y = [1.0, 2.0, 3.0, 4.0, 3.0], [2.0, 1.5, 4.0, 4.0, 4.0]
    assert non_dominated(x, y).tolist() == [True, False, True, False, False]


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_which_points_are_beaten_is_what_comparing_all_pairs_says(points: list[tuple[int, int]]) -> None:
    found = non_dominated(*zip(*points, strict=True))
    for place, (x, y) in enumerate(points):
        beaten = any((a <= x and b >= y) and (a < x or b > y) for a, b in points)
        repeated = points.index((x, y)) < place
        assert found[place] == (not beaten and not repeated)


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_the_frontier_rises_and_no_point_lies_above_it(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    knots = line(x, y)
    assert (np.diff(knots[0]) > 0).all() and (np.diff(knots[1]) > 0).all()
    assert (np.interp(x, *knots) >= y - 1e-12).all()
    assert area(knots, 0, 4) + area(knots, 4, 9) == pytest.approx(area(knots, 0, 9))


def test_area_by_hand() -> None:
    knots = line(np.array([0.0, 2.0, 3.0, 6.0]), np.array([0.0, 4.0, 3.0, 6.0]))  # the third is beaten
    # From 1 (height 2) to 2 (height 4): 3. From 2 to 6 (height 6): 20. Level beyond: 6 times 2.
    assert area(knots, 1, 6) == pytest.approx(23.0)
    assert area(knots, 1, 8) == pytest.approx(35.0)
    # Through all points: from 2 to 3 heights 4 and 3, from 3 to 6 heights 3 and 6.
    every = line(np.array([0.0, 2.0, 3.0, 6.0]), np.array([0.0, 4.0, 3.0, 6.0]), "all")
    assert area(every, 1, 6) == pytest.approx(3 + 3.5 + 13.5)


def test_all_points_at_one_kl_are_their_mean() -> None:
    x, y = line(np.array([2.0, 1.0, 2.0]), np.array([5.0, 1.0, 3.0]), "all")
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0], [1.0, 4.0])


def test_settings_are_means_over_seeds_and_areas_lie_between_what_all_reach() -> None:
    found = frontiers(
        sweep(
            *(run("a", "1", 2 + d, 3 + d, seed, start=1.0) for seed, d in enumerate((-0.5, 0.5))),
            *(run("a", "2", 6, 5 + d, seed, start=1.0) for seed, d in enumerate((-1, 1))),
            *(run("b", label, x, x, seed, start=1.0) for label, x in (("1", 1.0), ("2", 4.0)) for seed in (0, 1)),
        )
    )
    a, b = found.groups
    assert [(point.x, point.y) for point in a.points] == [(2.0, 3.0), (6.0, 5.0)]
    assert a.points[0].x_se == pytest.approx(0.5)  # of -0.5 and 0.5: 0.707 / sqrt(2)
    assert (found.limits, found.start, found.level) == ((2.0, 4.0), 1.0, 0.95)
    assert a.area.value == pytest.approx(7.0)  # heights 3 and 4
    # b: KL 1 gives no more than the untrained model, so the line goes from (0, 1) to (4, 4): heights 2.5 and 4.
    assert [point.nondominated for point in b.points] == [False, True]
    assert b.area.value == pytest.approx(6.5)
    [difference] = found.comparisons
    assert difference.limits == (2.0, 4.0)
    assert difference.area.value == pytest.approx(0.5)
    assert difference.area.low < 0.5 < difference.area.high
    assert b.area.low == b.area.high == pytest.approx(6.5)  # its seeds agree, and it has no error


def test_the_interval_over_prompts_is_the_closed_form_of_a_sum_of_normals() -> None:
    # Through all points the area is 0.5 y1 + y2 + 0.5 y3 at KL 1, 2, 3: variance 1.5 se^2 where KL is known.
    runs = [Run("", "a", str(x), "0", Value(float(x), 0.0), Value(5.0, 0.2)) for x in (1, 2, 3)]
    found = frontiers(sweep(*runs), through="all", band="prompts", resamples=4_000)
    half = 1.96 * 0.2 * math.sqrt(1.5)
    assert found.groups[0].area.low == pytest.approx(10 - half, abs=0.03)
    assert found.groups[0].area.high == pytest.approx(10 + half, abs=0.03)
    # At the middle knot the band is that of one point.
    middle = found.groups[0].grid[0].tolist().index(2.0)
    assert found.groups[0].high[middle] - 5 == pytest.approx(1.96 * 0.2, abs=0.03)


def test_the_interval_over_seeds_has_the_spread_of_a_mean_of_seeds() -> None:
    # Eleven seeds whose rewards are -5, …, 5 at both KLs: the standard error of each mean is sqrt(11) / sqrt(11) = 1.
    runs = [run("a", str(x), x, float(seed - 5), seed) for x in (1, 2) for seed in range(11)]
    found = frontiers(sweep(*runs), through="all", from_start=False, resamples=4_000)
    half = 1.96 / math.sqrt(2)  # the area is the mean of the two
    assert found.groups[0].area.low == pytest.approx(-half, rel=0.06)
    assert found.groups[0].area.high == pytest.approx(half, rel=0.06)


def test_what_prompts_have_in_common_cancels_in_a_difference() -> None:
    scores = np.random.default_rng(0).normal(0, 10, 40)
    prompts = tuple(f"prompt {place}" for place in range(40))

    runs = [
        Run(
            "",
            name,
            str(x),
            "0",
            Value(x, 0.0),
            Value(scores.mean() + x + more, 1.6),
            math.nan,
            scores + x + more,
            prompts,
        )
        for name, more in (("a", 0.0), ("b", 0.5))
        for x in (1.0, 2.0)
    ]
    found = frontiers(sweep(*runs), through="all", band="prompts")
    assert found.groups[0].area.high - found.groups[0].area.low > 3
    assert found.comparisons[0].area.low == pytest.approx(-0.5, abs=1e-6)
    assert found.comparisons[0].area.high == pytest.approx(-0.5, abs=1e-6)


def test_several_comparisons_have_wider_intervals() -> None:
    rng = np.random.default_rng(1)
    runs = [run(name, str(x), x, rng.normal(), seed) for name in "abc" for x in (1.0, 2.0) for seed in range(3)]
    many, one = (frontiers(sweep(*some), through="all", resamples=300) for some in (runs, runs[:12]))
    assert many.level == pytest.approx(1 - 0.05 / 3)
    assert len(many.comparisons) == 3
    assert many.comparisons[0].area.high > one.comparisons[0].area.high
    assert "95 % for all 3 together" in printed(many)


def test_one_seed_has_no_band_unless_that_of_prompts_is_asked_for() -> None:
    runs = [run("a", str(x), x, x, se=0.1) for x in (1.0, 2.0)] + [run("b", "1", 1, 1, s) for s in (0, 1)]
    found = frontiers(sweep(*runs, run("b", "2", 2, 2)))
    assert [group.no_band for group in found.groups] == ["one seed", "one seed in 1 of 2 settings"]
    assert all(math.isnan(group.area.low) and not len(group.low) for group in found.groups)
    assert math.isnan(found.comparisons[0].area.low)
    assert "No band for a: one seed; --band prompts shows the chance over prompts alone." in printed(found).replace(
        "\n", " "
    )
    over = frontiers(sweep(*runs), band="prompts")
    assert math.isfinite(over.groups[0].area.low)
    assert "prompts alone are resampled, so chance between runs is not in it" in printed(over).replace("\n", " ")
    unknown = [run("a", str(x), x, x, se=math.nan) for x in (1.0, 2.0)]
    assert frontiers(sweep(*unknown), band="prompts").groups[0].no_band == "no standard errors over prompts"


def test_too_few_points_and_no_common_kl_are_said() -> None:
    runs = [run("a", str(x), x, x) for x in (1.0, 2.0)] + [run("b", str(x), x, x) for x in (3.0, 4.0)]
    found = frontiers(sweep(*runs, run("c", "1", 1, 1)))  # one seed each: nothing is resampled
    assert found.limits is None and found.comparisons[0].limits is None
    assert found.groups[2].why_not == "too few points for a frontier: 1 of 2"
    said = printed(found)
    assert "No KL is reached by all groups" in said
    assert said.count("no common KL") == 2
    assert draw(found).startswith(b"\x89PNG")


def test_a_setting_with_an_infinite_kl_has_no_point_whatever_its_other_seeds() -> None:
    lost = run("a", "3", math.inf, 9.0, 1, left_out="no finite kl")
    found = frontiers(sweep(run("a", "1", 1, 1), run("a", "2", 2, 2), run("a", "3", 3, 9), lost))
    [group] = found.groups
    assert [point.label for point in group.points] == ["1", "2"]
    assert group.settings[2].left_out == "no finite kl in 1 of 2 runs"
    assert "no finite kl in 1 of 2 runs" in printed(found)
    assert to_dict(found)["groups"][0]["settings"][2]["x"] is None


def test_limits_that_a_group_does_not_reach_give_no_area() -> None:
    runs = [run("a", str(x), x, x, start=0.0) for x in (2.0, 4.0)]
    assert frontiers(sweep(*runs), limits=(0, 4)).groups[0].area.value == pytest.approx(8.0)  # from the untrained model
    assert math.isnan(frontiers(sweep(*runs), limits=(0, 5)).groups[0].area.value)
    assert math.isnan(frontiers(sweep(*runs), limits=(0, 4), from_start=False).groups[0].area.value)


def test_run_folders_are_found_and_told_apart_by_setting_and_seed(tmp_path: Path) -> None:
    for beta in (0.1, 0.5):
        for seed in (0, 1):
            folder = make_run(
                tmp_path / "sweep" / f"{beta}-{seed}", seed=seed, steps=1, kl={"mean": 1 / beta, "se": 0.1}
            )
            changed = config(seed)
            changed["loss"]["beta"] = beta
            (folder / "config.yaml").write_text(yaml.safe_dump(changed))
    begun = tmp_path / "sweep" / "begun"
    begun.mkdir()
    (begun / "config.yaml").write_text(yaml.safe_dump(config(2)))
    found = read_sweep([tmp_path])
    assert sorted({(run.setting, run.seed) for run in found.runs}) == [
        (f"beta={beta}", seed) for beta in (0.1, 0.5) for seed in "01"
    ]
    assert {run.group for run in found.runs} == {"dpo"}
    assert found.y_name == "plain_words"
    assert "not finished, left out: begun" in found.notes
    for one in found.runs:  # the error is that of the answers' scores, not of the difference
        assert one.scores is not None and len(one.scores) == len(one.prompts)
        assert one.y.se == pytest.approx(one.scores.std(ddof=1) / math.sqrt(len(one.scores)))
    assert frontiers(found).groups[0].area.n == 2000


def write_rows(file: Path, *rows: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def row(method: str, kl: float, score: float, seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "method": method,
        "kl_coef": 1 / kl if kl else 0.0,
        "seed": seed,
        "score": {"name": "words", "before": 1.0, "after": score, "difference": score - 1, "ci95": [0.0, 0.392]},
        "kl": {"mean": kl, "se": 0.5},
        **more,
    }


def test_rows_of_json_lines(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "f.jsonl", row("p3o", 1, 2), row("p3o", 2, 3), row("ppo", 2, 2), row("ppo", 1, 2, 1))
    found = read_sweep([file])
    assert [one.group for one in found.runs] == ["p3o", "p3o", "ppo", "ppo"]
    assert found.runs[0].x == Value(1, 0.5)
    assert found.runs[0].y.se == pytest.approx(0.1, rel=1e-4)  # 0.392 / (2 * 1.96)
    assert (found.runs[0].setting, found.runs[0].seed, found.runs[0].start) == ("kl_coef=1.0", "0", 1.0)
    assert read_sweep([file], y="score.difference").runs[1].y.mean == 2
    assert [one.group for one in read_sweep([file], by="kl_coef").runs] == ["1.0", "1.0", "0.5", "0.5"]


def test_a_run_made_again_is_no_second_seed(tmp_path: Path) -> None:
    found = read_sweep([write_rows(tmp_path / "f.jsonl", row("a", 1, 2), row("a", 1, 3), row("a", 2, 3))])
    assert [one.y.mean for one in found.runs] == [3, 3]
    assert "1 runs repeat a setting and its seed: the last one counts" in found.notes


def test_an_infinite_kl_is_left_out_with_its_reason(tmp_path: Path) -> None:
    found = read_sweep([write_rows(tmp_path / "f.jsonl", row("a", 1, 2), row("a", math.inf, 3))])
    assert [one.left_out for one in found.runs] == ["", "no finite kl"]


def test_what_cannot_be_compared_is_refused_or_said(tmp_path: Path) -> None:
    other = row("a", 2, 3)
    other["score"] = {**other["score"], "name": "length"}
    with pytest.raises(UserError, match=r"different kinds \(length, words\)"):
        read_sweep([write_rows(tmp_path / "f.jsonl", row("a", 1, 2), other)])
    found = read_sweep([write_rows(tmp_path / "g.jsonl", row("a", 1, 2, model="tiny"), row("a", 2, 3, model="big"))])
    assert found.notes == ["the runs differ in model: KL or reward is not of the same thing"]


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    file = write_rows(tmp_path / "f.jsonl", row("a", 1, 2), {"method": "b"})
    for arguments, said in (
        ([tmp_path / "none"], "no run folder"),
        ([file, "--by", "metod"], "did you mean method?"),
        ([file, "--y", "socre"], "the runs have kl, score"),
        ([file, "--limits", "3"], "two numbers with a comma"),
        ([file, "--limits", "3,1"], "the first must be below"),
        ([file, "--band", "seed"], "did you mean seeds?"),
        ([file, "--png", tmp_path / "no" / "f.png"], "there is no folder"),
        ([tmp_path / "empty.jsonl"], "no JSON lines in it"),
    ):
        (tmp_path / "empty.jsonl").write_text("")
        assert said in refused(monkeypatch, capsys, "frontier", *arguments)


def test_the_command_writes_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    rows = [row(name, kl, kl + seed / 10, seed) for name in ("=a", "[bold]b\x1b") for kl in (1, 2) for seed in (0, 1)]
    file = write_rows(tmp_path / "f.jsonl", *rows)
    wanted = {kind: tmp_path / f"out.{kind}" for kind in ("png", "csv", "json")}
    files = [word for kind, path in wanted.items() for word in (f"--{kind}", path)]
    assert align(monkeypatch, "frontier", file, *files) == 0
    shown = capsys.readouterr().out
    assert "[bold]b<U+001B>" in shown and "\x1b" not in shown
    assert wanted["png"].read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader(wanted["csv"].open()))
    assert tuple(table[0]) == COLUMNS
    assert {kind: sum(one["kind"] == kind for one in table) for kind in ("run", "setting")} == {"run": 8, "setting": 4}
    assert table[0]["group"] == "'=a"  # no formula for a spreadsheet
    assert {one["kind"] for one in table if one["y_low"]} == {"frontier"}
    content = json.loads(wanted["json"].read_text())
    assert content["limits"] == [1, 2] and content["comparisons"][0]["value"] == pytest.approx(0, abs=1e-9)


def test_the_same_seed_gives_the_same_bytes() -> None:
    runs = sweep(*(run("a", str(x), x, x + s, s, se=0.1) for x in (1.0, 2.0) for s in (0, 1)))
    first, again, other = (frontiers(runs, seed=seed, resamples=200) for seed in (0, 0, 1))
    assert to_csv(first) == to_csv(again) != to_csv(other)
    assert draw(first) == draw(again)
    assert notes(first)[0].startswith("● not dominated")
