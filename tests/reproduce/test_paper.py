"""The recipes at paper scale: each begins with its command, composes, and holds the published numbers."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.errors import UserError
from alignment.reproduce import paper
from alignment.reproduce.lab import composer
from alignment.reproduce.tables import NAMES
from tests.launching import ROOT


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # feedback of one's own is named by a relative path


@cache
def first(table: str, name: str) -> Any:
    """The configuration of a recipe's command; of a sweep that of the first job."""
    (run,) = [run for run in paper.paper_runs(table) if run.file.stem == name]
    return composer().config(composer().jobs(run.overrides)[0])


@pytest.mark.parametrize("table", NAMES)
def test_recipes_are_numbered_and_begin_with_their_commands(table: str) -> None:
    assert "at paper scale" in (paper.paper_folder(table) / "README.md").read_text(encoding="utf-8")
    runs = paper.paper_runs(table)
    assert [int(run.file.stem.partition("_")[0]) for run in runs] == list(range(1, len(runs) + 1))
    for run in runs:
        assert f"recipe=recipes/paper/{table}/{run.file.name}" in run.overrides
        assert f"output_dir=outputs/paper/{table}/{run.file.stem}" in run.overrides
    assert first(table, runs[-1].file.stem).recipe == runs[-1].file.stem


@pytest.mark.slow
@pytest.mark.parametrize("table", NAMES)
def test_every_job_of_every_recipe_composes(table: str) -> None:
    made: list[str] = []
    for run in paper.paper_runs(table):
        found = paper.configs(run)
        assert ("-m" in run.words) == (len(found) > 1)
        assert all(config.recipe == run.file.stem and config.description for config in found)
        assert {config.output_dir for config in found} == {f"outputs/paper/{table}/{run.file.stem}"}
        # What another stage makes is made by an earlier one.
        own = [path for config in found for path in paper.needs(config) if path.startswith("outputs/")]
        assert all(any(path.startswith(earlier) for earlier in made) for path in own), own
        made.append(f"outputs/paper/{table}/{run.file.stem}")


def test_published_hyper_parameters() -> None:
    dpo = first("dpo_sentiment", "2_dpo")
    assert (dpo.training.batch_size, dpo.training.learning_rate, dpo.training.optimizer) == (64, 1e-6, "rmsprop")
    p3o = first("p3o", "2_p3o_v2_1b")
    assert (p3o.loss["epsilon"], p3o.loss["ratio_limit"], p3o.rollout.prompts, p3o.rollout.epochs) == (0.2, 10, 64, 4)
    assert (p3o.training.learning_rate, p3o.training.batch_size, p3o.training.max_steps) == (6e-6, 8, 2500)
    tldr = first("p3o", "13_tldr_ppo")
    assert (tldr.training.learning_rate, tldr.training.batch_size, tldr.rollout.prompts) == (5e-6, 4, 128)
    assert (tldr.loss["kl_coef"], tldr.loss["value_coef"], tldr.rollout.max_new_tokens) == (0.1, 0.2, 50)
    assert first("nash_md", "5_nash_md").loss["tau"] == 0.008
    cut = first("cut", "1_cut_base")
    assert (cut.loss["margin"], cut.loss["weight"], cut.training.learning_rate) == (1.2, 0.5, 4e-4)
    online = first("cut", "10_online")
    assert (online.rollout.iterations, online.rollout.prompts, online.judged.downsample) == (5, 1000, 0.25)
    controlled = first("direct_alignment", "3_lc_dpo")
    assert (controlled.loss["name"], controlled.loss["beta"], controlled.loss["length_alpha"]) == ("r_dpo", 0.1, 0.05)
    ppo = first("alpaca_farm", "7_ppo")
    assert (ppo.loss["kl_coef"], ppo.rollout.prompts, ppo.training.batch_size) == (0.0067, 512, 256)
    assert first("ratings", "3_best_of_64_ratings").rollout.completions == 64

    def swept(table: str, name: str) -> list[str]:
        (run,) = [run for run in paper.paper_runs(table) if run.file.stem == name]
        return [job[-1].partition("=")[2] for job in composer().jobs(run.overrides)]

    assert swept("dpo_sentiment", "2_dpo") == ["0.05", "0.1", "1", "5"]
    assert swept("dpo_sentiment", "3_ppo") == ["3", "6", "9", "12"]
    assert swept("nash_md", "5_nash_md") == ["0", "0.125", "0.25", "0.375", "0.5", "0.625", "0.75", "1"]


def test_a_first_comment_that_is_no_command_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "1_dpo.yaml"
    file.write_text("# A recipe.\nmethod: dpo\n")
    with pytest.raises(UserError, match="first comment must be the command"):
        paper.launch_line(file)
    file.write_text(
        "# accelerate launch \\\n#     train.py recipe=x.yaml \\\n#     -m seed=0,1\n#\n# More.\nmethod: dpo\n"
    )
    run = paper.PaperRun(file, paper.launch_line(file))
    assert run.command == "accelerate launch train.py recipe=x.yaml -m seed=0,1"
    assert run.overrides == ["recipe=x.yaml", "seed=0,1"]


def test_without_models_the_commands_are_printed_and_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    said: list[str] = []
    with pytest.raises(
        UserError, match=r"nothing was run: not here are .*gpt-j-6b, Dahoas/rm-static\nMend: .*README.md"
    ):
        paper.launch("p3o", said.append)
    assert len(said) == 14 and all(line.startswith("accelerate launch ") for line in said)


def test_commands_run_in_order_and_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[str] = []

    def run(words: list[str], check: bool) -> Any:
        (folder,) = [Path(word.removeprefix("output_dir=")) for word in words if word.startswith("output_dir=")]
        ran.append(folder.name)
        if len(ran) == 2:
            return SimpleNamespace(returncode=1)
        (tmp_path / folder.name).write_text("")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(paper, "lacking", lambda run: [])
    monkeypatch.setattr(paper, "is_done", lambda run: (tmp_path / run.file.stem).is_file())
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="2_reward_rankings.yaml ended with exit code 1"):
        paper.launch("ratings", lambda line: None)
    paper.launch("ratings", lambda line: None)
    assert ran == [
        "1_reward_ratings",
        "2_reward_rankings",
        "2_reward_rankings",
        *(f"{n}_best_of_64_{k}" for n, k in ((3, "ratings"), (4, "rankings"))),
    ]


def test_done_is_a_summary_of_every_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [SimpleNamespace(output_dir=str(tmp_path))] * 2
    monkeypatch.setattr(paper, "configs", lambda run: jobs)
    run = paper.PaperRun(tmp_path / "1.yaml", "python train.py")
    for number in range(2):
        assert not paper.is_done(run)
        (tmp_path / f"{number}_seed").mkdir()
        (tmp_path / f"{number}_seed" / "summary.json").write_text("{}")
    assert paper.is_done(run)
