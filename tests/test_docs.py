"""Every bash and python block of the pages below is run, in their order (`console` blocks are for reading).

A block whose first line is a comment with a file's name, such as `# mine.py`, becomes that file instead.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ROOT, environment

SLOW = ("evaluation.md", "extending.md", "fine_tuning.md", "improve.md", "reward_models.md")
BLOCK = re.compile(r"^```(\w+)\n(?:# (\S+\.\w+)\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW),
        "feedback.md",
        "metrics.md",
        "quickstart.md",
        "rollouts.md",
    ],
)
def test_examples_run(page: str, tmp_path: Path) -> None:
    for name in ("train.py", "docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    # The commands that an installation puts beside the interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert any(language in ("bash", "python") for language, _, _ in blocks)
    for language, name, text in blocks:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
        if name or language not in ("bash", "python"):
            continue
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    if page == "fine_tuning.md":
        assert (tmp_path / "my-model" / "config.json").is_file()
        assert (tmp_path / "runs" / "strong" / "report.html").is_file()
    if page == "extending.md":
        check_extending(tmp_path)


def check_extending(folder: Path) -> None:
    """The loss and the format of the page did what the page says of them."""

    def last(run: str) -> dict[str, float]:
        return json.loads((folder / "runs" / run / "metrics.jsonl").read_text().splitlines()[-1])

    assert last("dpop")["eval_chosen_drop"] < 1 and last("dpo")["eval_chosen_drop"] > 3
    assert last("dpop")["eval_accuracy"] > 0.7
    rows = json.loads((folder / "runs" / "tickets" / "summary.json").read_text())["data"]["train"]
    assert (rows["rows"], rows["skipped"]) == (3, 1)
    assert len((folder / "pairs.jsonl").read_text().splitlines()) == 2


def test_the_readme_shows_what_the_quickstart_runs() -> None:
    quickstart = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    shown = [
        text
        for language, _, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
        if language in ("bash", "python")
    ]
    assert shown and all(text in quickstart for text in shown)


def test_links_between_pages_hold() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
