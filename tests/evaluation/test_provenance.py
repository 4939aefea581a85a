"""Where a model comes from: licences out of local cards alone, who judged, and the toolkit's commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.evaluation import provenance as module
from alignment.evaluation.card import write_model_card
from alignment.evaluation.provenance import provenance, toolkit
from tests.launching import ROOT

from .fake_run import config, make_run, summary


def licences(path: Any) -> list[str]:
    return [each["licence"] for each in provenance({"data": {"path": path}})["sources"]]


def test_licences_are_read_from_cards(tmp_path: Path) -> None:
    assert licences("everyday") == licences("planted") == ["Apache-2.0"]
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert licences(str(tmp_path / "rows.jsonl")) == licences(str(tmp_path)) == ["not stated"]
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Rows\n")
    assert licences(str(tmp_path / "rows.jsonl")) == licences(str(tmp_path)) == ["cc-by-4.0"]
    (tmp_path / "README.md").write_text("---\nlicense: [mit, apache-2.0]\n---\n")
    assert licences({str(tmp_path): 1.0, "everyday": 2.0}) == ["mit, apache-2.0", "Apache-2.0"]


@pytest.mark.parametrize("text", ["---\nlicense: [\n---\n", "---\na: &a [*a]\n---\n", "---\n- x\n---\n", "", "\x00"])
def test_a_broken_card_states_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licences(str(tmp_path)) == ["not stated"]


@pytest.mark.parametrize("path", ["owner/name", "owner/name:config", "a" * 5000, "\x00", "*", "x\ud800"])
def test_what_is_not_there_states_nothing(path: str) -> None:
    assert licences(path) == ["not stated"]


def test_judges_are_named_with_their_models() -> None:
    served = {"name": "judge_served", "model": "big", "base_url": "http://localhost/v1"}
    found = provenance({"feedback": {"name": "both_orders", "of": served}, "evaluation": {"score": "plain_words"}})
    assert found["feedback"] == ["both_orders", "judge_served (big)"] and found["score"] == ["plain_words"]


def test_the_commit_is_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert toolkit()["commit"] == head and isinstance(toolkit()["changed"], bool)
    monkeypatch.setattr(module.alignment, "__file__", str(tmp_path / "site-packages" / "alignment" / "__init__.py"))
    assert "commit" not in toolkit()


def card_of(folder: Path, known: dict[str, Any]) -> str:
    run = make_run(folder / "run")
    (run / "config.yaml").write_text(yaml.safe_dump(config(0)))
    (run / "summary.json").write_text(json.dumps({**summary(0, 3), "provenance": known}))
    return write_model_card(run).read_text()


def test_the_card_names_sources_base_judges_and_commit(tmp_path: Path) -> None:
    known = {
        "sources": [{"path": "everyday", "licence": "Apache-2.0"}, {"path": "/home/me/rows.jsonl"}],
        "base": {"path": "smollm2-135m", "licence": "Apache-2.0"},
        "feedback": ["judge_local (/home/me/judge)"],
        "score": ["plain_words"],
        "toolkit": {"version": "0.1.0", "commit": "abc123", "changed": True},
    }
    text = card_of(tmp_path, known)
    for line in (
        "| everyday | Apache-2.0 |",
        "| rows.jsonl | not stated |",
        "| recipe | dpo |",
        "| base model | smollm2-135m, licence: Apache-2.0 |",
        r"| learned from the judgment of | judge\_local (judge) |",
        r"| scored by | plain\_words |",
        "| alignment-toolkit | 0.1.0 |",
        "| commit | abc123, with changed files |",
    ):
        assert line in text, line
    assert "/home/me" not in text


@pytest.mark.parametrize(
    "bad", [None, 3, "x", [1], {"sources": "x"}, {"sources": [3, None]}, {"toolkit": [], "feedback": [{}]}]
)
def test_a_card_of_a_summary_from_elsewhere(bad: Any, tmp_path: Path) -> None:
    assert "## Data" in card_of(tmp_path, bad)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    name = "x](http://evil) | <script>alert(1)</script>\n# Heading\n```"
    source = [{"path": name, "licence": name}]
    text = card_of(tmp_path, {"sources": source, "base": source[0], "feedback": [name], "toolkit": {"commit": name}})
    assert "<script>" not in text and "\n# Heading" not in text and "](http" not in text.replace(r"\](http", "")
