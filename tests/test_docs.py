"""Every bash and python block of the pages below is run, in their order (`console` blocks are for reading)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launching import ROOT, environment

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["fine_tuning.md", "quickstart.md"])
def test_examples_run(page: str, tmp_path: Path) -> None:
    for name in ("train.py", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    # The commands that an installation puts beside the interpreter.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    blocks = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert blocks
    for language, text in blocks:
        command = ["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    if page == "fine_tuning.md":
        assert (tmp_path / "my-model" / "config.json").is_file()
        assert (tmp_path / "runs" / "strong" / "report.html").is_file()


def test_the_readme_shows_what_the_quickstart_runs() -> None:
    quickstart = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    for _, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        assert text in quickstart


def test_links_between_pages_hold() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
