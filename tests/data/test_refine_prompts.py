"""Self-Refine's requests: what stands where, and when a critique ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from alignment.data.refine_prompts import FOLDER, load_refine_template
from alignment.errors import UserError

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a {judgment}."}]


def test_the_last_user_turn_holds_all_and_slots_in_texts_stay_text() -> None:
    template = load_refine_template("chat")
    judged = template.to_judge(PROMPT, "A {instruction}.")
    assert judged[0] == PROMPT[0] and "Request: Name a {judgment}.\n\nAnswer: A {instruction}." in judged[1]["content"]
    refined = template.to_refine(PROMPT, "A {answer}.", "It has {answer}.")[1]["content"]
    assert refined.startswith("Name a {judgment}.") and refined.endswith("A {answer}.\nFeedback: It has {answer}.")


def test_what_finds_nothing_to_improve() -> None:
    template = load_refine_template("chat")
    assert template.is_done("Nothing to improve.") and not template.is_done("There is much to improve.")


def test_every_shipped_template_is_whole() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.yaml")) == ["alpaca", "chat"]
    for name in ("alpaca", "chat"):
        template = load_refine_template(name)
        # The words that end it are asked for, with no line break in them.
        assert template.done in template.critique


def test_mistakes_in_a_template_of_ones_own(tmp_path: Path) -> None:
    good = {
        "critique": "{instruction} {answer}",
        "refine": "{instruction} {answer} {judgment}",
        "done": "ok",
        "cut": "…",
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**good, "refine": "{instruction} {answer}"}))
    with pytest.raises(UserError, match=r"refine must have the slot \{judgment\}"):
        load_refine_template(str(file), "--refine-template")
    file.write_text(yaml.safe_dump(good))
    assert load_refine_template(str(file)).is_done("OK then")
