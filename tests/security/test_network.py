"""Nothing asks the network unless it is told to: the demo, data check and evaluation with every socket forbidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ROOT, environment, launch_command

GUARD = """
import os, socket


def forbid(name):
    def refuse(*given, **more):
        if isinstance(given[0], socket.socket) and given[0].family == getattr(socket, "AF_UNIX", None):
            return kept[name](*given, **more)
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{name} {given[-1] if name != 'getaddrinfo' else given[0]}\\n")
        raise OSError(f"forbidden: {name}")
    return refuse


kept = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
for name in kept:
    setattr(socket.socket, name, forbid(name))
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, forbid(name))
"""


def offline(command: list[str], folder: Path) -> tuple[subprocess.CompletedProcess, str]:
    """`command` with Python's sockets forbidden, and every attempt to use one. What is written in C is not seen."""
    (folder / "guard").mkdir(exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(GUARD)
    attempts = folder / "attempts"
    attempts.write_text("")
    settings = environment(ATTEMPTS=str(attempts), ALIGN_CACHE=os.environ.get("ALIGN_CACHE", str(folder / "cache")))
    settings["PYTHONPATH"] = os.pathsep.join([str(folder / "guard"), settings["PYTHONPATH"]])
    del settings["HF_HUB_OFFLINE"]  # as a user has it
    done = subprocess.run(command, env=settings, cwd=ROOT, capture_output=True, text=True, timeout=500)
    return done, attempts.read_text()


@pytest.mark.slow
def test_the_guard_sees_an_attempt(tmp_path: Path) -> None:
    script = "import urllib.request; urllib.request.urlopen('http://example.org')"
    done, attempts = offline([sys.executable, "-c", script], tmp_path)
    assert done.returncode and "getaddrinfo" in attempts


@pytest.mark.slow
def test_the_demos_recipe(tmp_path: Path) -> None:
    words = ["recipe=dpo", "model=tiny", f"output_dir={tmp_path}/run", "training.max_steps=2", "evaluation.prompts=4"]
    done, attempts = offline(launch_command(["train.py", *words], 1), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert attempts == "" and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_checking_data_and_evaluating_stored_answers(tmp_path: Path) -> None:
    align = [sys.executable, "-m", "alignment"]
    done, attempts = offline([*align, "data", "check", "everyday"], tmp_path)
    assert done.returncode in (0, 1) and attempts == "" and "Traceback" not in done.stderr, done.stderr[-2000:]
    rows = [json.loads(line) for line in (ROOT / "alignment/data/builtin_sets/everyday/test.jsonl").open()][:6]
    for place, name in enumerate(("good", "bad")):
        answers = [{"prompt": row["prompt"], "completion": row["responses"][place]["messages"]} for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    command = [
        *align,
        "eval",
        f"{tmp_path}/good.jsonl",
        f"{tmp_path}/bad.jsonl",
        "--prompts",
        f"{tmp_path}/prompts.jsonl",
    ]
    done, attempts = offline([*command, "--out", f"{tmp_path}/eval", "--score", "plain_words"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert attempts == ""
