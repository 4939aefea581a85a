"""scripts/tabular.py as a user runs it, on few games."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from scripts.tabular import app


def test_games_are_counted_listed_and_drawn(tmp_path: Path) -> None:
    arguments = [
        "games",
        "--number",
        "20",
        "--steps",
        "60",
        "--json",
        str(tmp_path / "g.json"),
        "--plots",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "g.json").read_text())
    assert found["games"] == 20 and 0 < found["without_condorcet_winner"] < 20
    assert found["above_last_iterate_bound"] == found["above_one_step_bound"] == 0
    kinds = {name: kind["cycle"] for name, kind in found["methods"].items()}
    assert kinds["Nash-MD"]["kl_mean"] < kinds["best response to mu"]["kl_mean"] < kinds["reference"]["kl_mean"]
    assert "Nash-MD" in done.output and "0 policies above" in done.output
    assert {file.name for file in tmp_path.glob("*.png")} == {"tabular_bound.png", "tabular_paths.png"}


def test_gradients_are_listed() -> None:
    done = CliRunner().invoke(app, ["gradients", "--problems", "2", "--lengths", "1,2"])
    assert done.exit_code == 0, done.output
    rows = {
        line.rsplit(None, 2)[0].strip(): float(line.split()[-1]) for line in done.output.splitlines() if "," in line
    }
    assert rows["P3O V1, rewards + 1"] < 1e-12 < 0.01 < rows["PPO, rewards + 1"]
    assert rows["KL of each token alone, 1 tokens"] < 1e-12 < 0.001 < rows["KL of each token alone, 2 tokens"]
