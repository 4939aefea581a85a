"""Prompts with a judgment in them, and what may be in a template of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.data.judgment_prompts import FOLDER, load_judgment_template
from alignment.errors import UserError

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "What is {judgment} in {instruction}?"},
]


def test_the_last_user_turn_alone_holds_the_judgment_and_slots_in_texts_stay_text() -> None:
    template = load_judgment_template("chat")
    assert template.asked(TURNS) == TURNS
    told = template.with_judgment(TURNS, "It says {instruction}.")
    assert told[:3] == TURNS[:3] and told[3]["role"] == "user"
    assert told[3]["content"].startswith("What is {judgment} in {instruction}?\n\n")
    assert told[3]["content"].endswith("Judgment: It says {instruction}.")


def test_alpaca_has_the_judgment_in_a_block_of_its_own() -> None:
    template = load_judgment_template("alpaca")
    prompt = [{"role": "user", "content": "Name a fruit."}]
    (plain,), (judged,) = template.asked(prompt), template.with_judgment(prompt, "That is no fruit.")
    assert "### Instruction:\nName a fruit.\n\n### Response:\n" in plain["content"]
    assert "Judgment" not in plain["content"] and "judgment" not in plain["content"]
    assert judged["content"].endswith(
        "### Instruction:\nName a fruit.\n\n### Judgment:\nThat is no fruit.\n\n### Response:\n"
    )


def test_a_prompt_without_a_user_turn_has_it_in_its_last() -> None:
    template = load_judgment_template("alpaca")
    (only,) = template.asked([{"role": "system", "content": "Sing."}])
    assert only["role"] == "system" and "Sing." in only["content"]


def test_every_shipped_template_is_whole() -> None:
    names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    assert names == ["alpaca", "chat"]
    for name in names:
        assert load_judgment_template(name).positive.strip()


GOOD = {"plain": "{instruction}", "judged": "{instruction} [{judgment}]", "positive": "Fine."}
MISTAKES = [
    ({**GOOD, "judged": "{instruction} but no judgment"}, "judged must have the slot {judgment}"),
    ({**GOOD, "plain": "Do it."}, "plain must have the slot {instruction}"),
    ({**GOOD, "plain": "{instruction} {judgment}"}, "unknown slot {judgment} in plain: it may have {instruction}"),
    ({**GOOD, "positive": "{instruction} is fine."}, "unknown slot {instruction} in positive: it has none"),
    ({**GOOD, "positve": "Fine."}, "unknown key 'positve': did you mean positive?"),
    ({"plain": "{instruction}", "judged": "{instruction} {judgment}"}, "it needs the key positive, with a text"),
    ({**GOOD, "positive": 3}, "it needs the key positive, with a text"),
    ([], "it needs the key plain, with a text"),
]


@pytest.mark.parametrize(("content", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_mistakes_in_a_template_of_ones_own(content: object, says: str, tmp_path: Path) -> None:
    import yaml

    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_judgment_template(str(file))
    assert says in str(caught.value) and "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_ones_own_template(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(GOOD))
    template = load_judgment_template(str(tmp_path / "mine.yaml"))
    told = template.with_judgment([{"role": "user", "content": "A?"}], "No.")
    assert told == [{"role": "user", "content": "A? [No.]"}]


def test_a_name_or_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown judged.template 'alpacca': did you mean alpaca\?"):
        load_judgment_template("alpacca")
    with pytest.raises(UserError, match="judged.template: no such file"):
        load_judgment_template(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "broken.yaml").write_text("plain: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_judgment_template(str(tmp_path / "broken.yaml"))
