"""Sweeps: the jobs, their folders, their order, and what becomes of a job that fails. No job trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.launch import processes, sweep
from alignment.launch.compose import Composer
from alignment.launch.sweep import Job, Sweep, plan

STUB = Path(__file__).parent / "stub_job.py"


def stub_command(notes: Path) -> Any:
    return lambda overrides: [sys.executable, str(STUB), str(notes), *overrides]


def planned(composer: Composer, *overrides: str) -> list[Job]:
    jobs = composer.jobs(overrides)
    return plan(jobs, [composer.config(job) for job in jobs], on_rank_0=True)


def test_folders_under_one_sweep_folder(composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = planned(composer, "recipe=dpo", "loss.beta=0.1,0.5", "seed=1")
    assert [job.folder.name for job in jobs if job.folder] == ["0_loss.beta=0.1", "1_loss.beta=0.5"]
    assert {job.folder.parent.parent for job in jobs if job.folder} == {Path("outputs/dpo")}
    assert jobs[0].folder and jobs[0].folder.parent == (jobs[1].folder or Path()).parent


def test_given_output_dir_is_the_sweep_folder(composer: Composer) -> None:
    jobs = planned(composer, "recipe=dpo", "seed=1,2", "output_dir=runs/x")
    assert [job.folder for job in jobs] == [Path("runs/x/0_seed=1"), Path("runs/x/1_seed=2")]
    assert all(job.overrides[:1] == ["recipe=dpo"] and len(job.overrides) == 2 for job in jobs)
    named = planned(composer, "recipe=dpo", "output_dir=runs/a,runs/b")
    assert [job.folder for job in named] == [Path("runs/a"), Path("runs/b")]


def test_recipes_in_one_sweep(composer: Composer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [dpo]\n")
    monkeypatch.chdir(tmp_path)
    jobs = planned(composer, "recipe=dpo,mine.yaml")
    assert [job.folder.name for job in jobs if job.folder] == ["0_recipe=dpo", "1_recipe=mine.yaml"]
    assert jobs[0].folder and jobs[0].folder.parts[:2] == ("outputs", "sweep")


def test_a_failed_job_is_reported_and_the_next_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("COLUMNS", "200")
    jobs = [Job([f"seed={s}"], [f"seed={s}"], tmp_path / f"it's job {s}") for s in (1, 13, 2)]
    assert Sweep(jobs, stub_command(tmp_path)).run() == 3
    assert [job.code for job in jobs] == [0, 3, 0]
    notes = [json.loads((tmp_path / f"rank0-seed{s}.json").read_text()) for s in (1, 13, 2)]
    assert len({note["pid"] for note in notes}) == 3  # a fresh process each
    assert notes[0]["overrides"] == ["seed=1", f"output_dir='{tmp_path}/it\\'s job 1'"]
    table = capsys.readouterr().out
    assert "[2/3] failed with exit code 3" in table
    assert any(line.split()[:2] == ["1", "seed=13"] and line.split()[-1] == "3" for line in table.splitlines())


def test_quoted_folder_reads_back(composer: Composer) -> None:
    config = composer.config(["recipe=dpo", "output_dir='runs/it\\'s = {one}, two'"])
    assert config.output_dir == "runs/it's = {one}, two"


def test_sigterm_ends_the_job_and_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.02)
    jobs = [Job(["recipe=terminates", f"seed={s}"], [f"seed={s}"], tmp_path) for s in (1, 2)]
    assert Sweep(jobs, stub_command(tmp_path)).run() == 143
    assert [job.code for job in jobs] == [143, sweep.NOT_STARTED]


def test_jobs_of_one_launched_process_get_ports_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("MASTER_PORT", "29500")
    jobs = [Job([f"seed={s}"], [], tmp_path) for s in (1, 2)]
    assert Sweep(jobs, stub_command(tmp_path)).run() == 0
    ports = {json.loads((tmp_path / f"rank0-seed{s}.json").read_text())["port"] for s in (1, 2)}
    assert "29500" not in ports
    assert len(ports) == 2


def run_on_two_ranks(notes: Path, recipe: str, seeds: tuple[int, ...]) -> list[subprocess.Popen[bytes]]:
    """Starts one sweep in two processes that know of each other, as a launcher would start them."""
    code = (
        "import os, sys; from pathlib import Path; from alignment.launch import sweep\n"
        "sweep.POLL_SECONDS = 0.05\n"
        f"notes, stub = Path({str(notes)!r}), {str(STUB)!r}\n"
        f"jobs = [sweep.Job([{'recipe=' + recipe!r}, f'seed={{s}}'], [f'seed={{s}}'], None) for s in {seeds}]\n"
        "sys.exit(sweep.Sweep(jobs, lambda o: [sys.executable, stub, str(notes), *o]).run())"
    )
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(processes.free_port())}
    command = [sys.executable, "-c", code]
    return [
        subprocess.Popen(command, env={**os.environ, **address, "RANK": rank}, stdout=subprocess.DEVNULL)
        for rank in ("0", "1")
    ]


def test_two_processes_keep_step_and_survive_a_half_failed_job(tmp_path: Path) -> None:
    """Job 0 fails on rank 1 while rank 0 waits for it: both sweeps must go on to job 1, with a common port each."""
    ranks = run_on_two_ranks(tmp_path, "rank1fails", (0, 1))
    assert [process.wait(timeout=120) for process in ranks] == [7, 7]  # rank 1's error, not rank 0's end
    notes = {(r, s): json.loads((tmp_path / f"rank{r}-seed{s}.json").read_text()) for r in (0, 1) for s in (0, 1)}
    assert notes[0, 0]["port"] == notes[1, 0]["port"]
    assert notes[0, 1]["port"] == notes[1, 1]["port"] != notes[0, 0]["port"]


@pytest.mark.slow
def test_sigterm_at_one_of_two_processes_ends_both(tmp_path: Path) -> None:
    ranks = run_on_two_ranks(tmp_path, "terminates_rank1", (0, 1))
    assert [process.wait(timeout=120) for process in ranks] == [143, 143]
    assert not list(tmp_path.glob("*seed1.json"))


def test_share_of_cores_under_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import os; from alignment.launch.processes import use_all_cores; use_all_cores(); "
        "print(os.environ['OMP_NUM_THREADS'])"
    )

    def threads(launcher: dict[str, str], **added: str) -> int:
        """OMP_NUM_THREADS in a process that a launcher with the environment `launcher` starts with `added`."""
        command = f"[sys.executable, '-c', {code!r}]"
        start = f"import os, subprocess, sys; subprocess.run({command}, env={{**os.environ, **{added}}})"
        base = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        done = subprocess.run([sys.executable, "-c", start], env={**base, **launcher}, capture_output=True, text=True)
        return int(done.stdout)

    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc")
    cores = len(os.sched_getaffinity(0))
    accelerate = {"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}
    assert threads({}, **accelerate) == cores
    assert threads({}, **accelerate, LOCAL_WORLD_SIZE="2") == max(1, cores // 2)
    assert threads({"OMP_NUM_THREADS": "1"}, **accelerate) == 1  # the user's own choice
    assert threads({}, OMP_NUM_THREADS="1") == 1  # no launcher
