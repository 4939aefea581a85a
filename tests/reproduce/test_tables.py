"""Every table's report, from rows of the right shape: what a training run would only show after an hour."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from alignment.reproduce import estimates
from alignment.reproduce.claims import AGAINST, NOTHING, OPEN, SUPPORTED
from alignment.reproduce.report import Made, Report, markdown, to_json
from alignment.reproduce.tables import NAMES, alpaca_farm, cut, direct_alignment, diversity, p3o, table_named
from tests.reproduce.fakes import rows


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = estimates.resampled
    monkeypatch.setattr(diversity, "HALVES", 4)
    monkeypatch.setattr(estimates, "resampled", lambda count, statistic, seed, n: whole(count, statistic, seed, 20))


def report(name: str, scale: str, seeds: tuple[int, ...]) -> Report:
    table, found = table_named(name), rows(name, scale, seeds)
    made = table.report(table.settings[scale], found)
    how = Made(name, table.title, table.paper, scale, seeds, "command", "machine", "date", 1.0, {}, None)
    page = markdown(how, made)
    assert page.count("## ") == len(made.sections) + 1 and "nan" not in page.lower().split()
    plain = json.loads(to_json(how, made))
    for section in plain["sections"]:
        assert section["lines"] and all(len(line) == len(section["heads"]) for line in section["lines"])
    return made


@pytest.mark.parametrize("name", NAMES)
def test_at_small_scale_every_claim_has_a_verdict(name: str) -> None:
    made = report(name, "small", (0, 1, 2))
    verdicts = [finding.verdict for finding in made.findings]
    assert set(verdicts) <= {SUPPORTED, AGAINST, OPEN}, [f.claim.text for f in made.findings if f.verdict == NOTHING]
    assert len({finding.claim.text for finding in made.findings}) == len(made.findings) >= 4
    assert all(finding.claim.published and finding.claim.figure for finding in made.findings)


@pytest.mark.parametrize("name", NAMES)
def test_a_smoke_run_leaves_out_what_it_did_not_run(name: str) -> None:
    made = report(name, "smoke", (0,))
    assert any(finding.verdict != NOTHING for finding in made.findings)


@pytest.mark.parametrize("name", NAMES)
def test_every_table_draws(name: str) -> None:
    table = table_named(name)
    assert table.draw is not None
    figure = table.draw(table.settings["small"], rows(name, "small", (0, 1)))
    content = BytesIO()
    figure.savefig(content, dpi=40)
    assert content.getvalue()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_different_and_their_rows_are_found_again(name: str) -> None:
    table = table_named(name)
    for scale in ("smoke", "small"):
        jobs = table.jobs(table.settings[scale], [0, 1])
        assert len({json.dumps(job, sort_keys=True) for job in jobs}) == len(jobs)
        assert json.loads(json.dumps(jobs)) == jobs  # plain values, so that a row of the file is this job's
        assert json.loads(json.dumps(table.settings[scale])) == table.settings[scale]


def finding(made: Any, text: str) -> Any:
    (found,) = [each for each in made if text in each.claim.text]
    return found


def test_what_is_there_is_found() -> None:
    """Rows in which a claim holds, or does not, by construction."""
    settings, found = p3o.SCALES["small"], rows("p3o", "small", (0, 1, 2))
    for row in found:
        gain = {p3o.V2: 3.0, p3o.PPO: 1.0}.get(row["job"]["method"], 0.0)
        for point in row["points"]:
            point["reward"] = (np.array(point["reward"]) + gain).tolist()
    made = p3o.report(settings, found).findings
    assert finding(made, "P3O (V2) at or above PPO").verdict == SUPPORTED
    assert finding(made, "P3O (V1) at or above PPO").verdict == AGAINST
    assert finding(made, "P3O is invariant").verdict == AGAINST  # the fakes differ with the offset
    for row in found:  # and now they do not
        if row["job"]["offset"] == 10:
            twin = {**row["job"], "offset": "none"}
            row["points"] = next(other["points"] for other in found if other["job"] == twin)
    made = p3o.report(settings, found).findings
    assert finding(made, "P3O is invariant").verdict == SUPPORTED and finding(made, "PPO is not").verdict == AGAINST


def test_over_optimisation_is_a_fall_from_the_best_point() -> None:
    found = rows("alpaca_farm", "small", (0, 1, 2))
    for row in found:
        climb = {alpaca_farm.NOISY: [0.3, 0.6, 0.7, 0.5, 0.4, 0.4], alpaca_farm.CLEAN: [0.3, 0.5, 0.6, 0.7, 0.8, 0.8]}
        for point, mean in zip(row["points"], climb[row["job"]["labels"]], strict=False):
            point["win"] = (mean + 0.1 * np.array(point["win"])).tolist()
    made = alpaca_farm.report(alpaca_farm.SCALES["small"], found).findings
    assert finding(made, "PPO over-optimises with label noise").verdict == SUPPORTED
    assert finding(made, "PPO does not with one annotator").verdict == SUPPORTED
    assert finding(made, "best-of-n falls further with noise").ours.value == pytest.approx(0.3, abs=0.02)


def test_length_control_by_hand() -> None:
    point = {"quality": [0.5, 0.5, 0.2], "words": [20, 5, 10], "reference": [10, 10, 10]}
    assert direct_alignment.controlled(point).tolist() == [0.25, 0.5, 0.2]  # shorter than the reference is no bonus


def test_a_loop_that_ended_early_stays_as_it_ended() -> None:
    settings = cut.SCALES["small"]
    path = cut.online_path(settings, rows("cut", "small", (0, 1)))
    assert path.shape == (2, 6, 48) and (path[1, 5] == path[1, 4]).all() and (path[0, 5] != path[0, 4]).any()


def test_rows_without_a_refined_answer_are_named() -> None:
    notes = cut.report(cut.SCALES["small"], rows("cut", "small", (0, 1))).notes
    assert notes[-1].endswith("the row is the start itself: chat ILF-DPO, seed 0; chat ILF-DPO, seed 1.")
