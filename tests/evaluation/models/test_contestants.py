"""Models and opinions by the words of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.errors import UserError
from alignment.evaluation.models.contestants import Contestant, chosen, contestants
from alignment.evaluation.models.opinions import opinions
from alignment.feedback.adapters import MeanWin
from tests.evaluation.models.made import Longer, write_rows


def test_names_and_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "a"}])
    write_rows(tmp_path / "gpt-3.5.jsonl", [{"prompt": "q", "completion": "a"}])
    assert [each.name for each in contestants(["gpt-3.5.jsonl"])] == ["gpt-3.5"]
    (tmp_path / "lr=3").mkdir()
    words = ["tiny", "ours=tiny", "outputs/dpo/2026-01-31_12-00-00", "org/model-7b", "m.gguf", "lr=3", "a.jsonl"]
    found = contestants([*words, "b=a.jsonl#tiny", "a.jsonl#base"])
    assert [each.name for each in found] == [
        "tiny", "ours", "dpo/2026-01-31_12-00-00", "model-7b", "m", "lr=3", "a", "b", "base",
    ]  # fmt: skip
    assert [each.spec for each in found][:7] == [*words[:1], "tiny", *words[2:7]]
    assert found[7] == Contestant("b", "a.jsonl", stored=True, source="tiny") and found[6].source is None
    assert [each.stored for each in found] == [False] * 6 + [True] * 3
    assert chosen("ours", found, "--baseline").spec == "tiny" and chosen("m.gguf", found, "--baseline").name == "m"
    with pytest.raises(UserError, match=r"--baseline \(one of the models by its name\) 'our': did you mean ours"):
        chosen("our", found, "--baseline")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no model"),
        (["tiny", "tiny"], "tiny-a=tiny tiny-b=tiny"),
        (["nowhere.jsonl"], "no such file of answers: nowhere.jsonl"),
        (["=tiny"], "something on both sides"),
        (["a="], "something on both sides"),
    ],
)
def test_what_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        contestants(words)


def test_opinions_are_checked_at_once_and_built_later(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("name: length\ntarget: 20\n")
    yaml = str(tmp_path / "short.yaml")
    found = opinions(["plain_words", "words=plain_words", yaml, Longer()], "--judge")
    assert [each.name for each in found] == ["plain_words", "words", "short", "longer"]
    assert [each.compares for each in found] == [False, False, False, True] and found[2].feedback.target == 20
    for given, says in (
        (["plain_wrods"], "did you mean plain_words"),
        (["plain_words", "plain_words"], "two are called plain_words"),
        ([f"{tmp_path}/none.yaml"], "no such file"),
    ):
        with pytest.raises(UserError, match=says):
            opinions(given, "--score")
    with pytest.raises(UserError, match="--judge longer"):
        _ = opinions([Longer()], "--score")[0].feedback
    with pytest.raises(UserError, match="several answers at once"):
        _ = opinions([MeanWin(Longer())], "--score")[0].feedback
