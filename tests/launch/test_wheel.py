"""The wheel, built and installed for real: `align` works outside a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignment.launch.assets import assets_root

PACKAGED = (
    "alignment/_assets/recipes/dpo.yaml",
    "alignment/_assets/configs/config.yaml",
    "alignment/data/builtin_sets/everyday/train.jsonl",
    "alignment/data/builtin_sets/everyday/test.jsonl",
    "alignment/models/builtin/tiny/config.json",
    "alignment/models/builtin/tiny/model.safetensors",
    "alignment/models/builtin/tiny/tokenizer.json",
)


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.slow
def test_wheel_outside_a_checkout(tmp_path: Path) -> None:
    root = assets_root()
    if not (root / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root))
    [wheel] = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel))
    for path in PACKAGED:
        assert (site / path).is_file(), path
    assert list((site / "alignment/evaluation/templates").iterdir())
    assert not (site / "tests").exists()

    environment = {**os.environ, "PYTHONPATH": str(site)}
    align = str(site / "bin" / "align")
    where = run(sys.executable, "-c", "import alignment; print(alignment.__file__)", cwd=elsewhere, env=environment)
    assert Path(where.strip()).is_relative_to(site)
    assert "dpo" in run(sys.executable, align, "train", "--help", cwd=elsewhere, env=environment)
    config = run(sys.executable, align, "train", "recipe=dpo", "--cfg", "job", cwd=elsewhere, env=environment)
    assert yaml.safe_load(config)["model"]["path"] == "smollm2-135m"
    assert list(elsewhere.iterdir()) == []
