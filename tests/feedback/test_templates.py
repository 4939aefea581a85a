"""Judge templates: what is refused when one is read, and what a filled one looks like."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import UserError
from alignment.feedback import templates
from alignment.feedback.judges import PairwiseJudge
from alignment.feedback.templates import load_template
from alignment.feedback.wrappers import Cached
from tests.feedback.scripted import Scripted

PAIR = ("prompt", "first", "second")
GOOD = "user: '{prompt} {first} {second} {line}'\nverdicts: {A: first, B: second}\n"


def own(tmp_path: Path, text: str) -> str:
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_every_shipped_template_is_sound() -> None:
    names = sorted(path.stem for path in (templates.assets_root() / "configs" / "judge").glob("*.yaml"))
    slots = {
        "pairwise": PAIR,
        "pairwise_reference": (*PAIR, "reference"),
        "score": ("prompt", "answer"),
        "critique": ("prompt", "answer"),
        "checklist_write": ("prompt",),
        "checklist_answer": ("prompt", "answer", "question"),
        "perspectives": PAIR,
        "review": (*PAIR, "perspective"),
        "review_again": (*PAIR, "perspective", "reviews"),
    }
    assert names == sorted(slots)
    for name, needed in slots.items():
        template = load_template(name, needed, verdicts=name not in ("checklist_write", "perspectives"))
        assert template.slots >= {*needed, "mark", "line"}


def test_a_filled_template_word_for_word(tmp_path: Path) -> None:
    text = "system: 'Tags end in {mark}.'\nuser: '{prompt} | {first} | {second} | {words} | {line}'\nline: Choice\n"
    template = load_template(own(tmp_path, text + "verdicts: {A: first, B: second, C: 0.25}"), PAIR)
    request = template.fill({"prompt": [{"role": "user", "content": "Hi?"}], "first": "a", "second": ""})
    mark = request.line.removeprefix("Choice-").removesuffix(":")
    assert len(mark) == 8
    assert int(mark, 16) >= 0
    assert template.verdicts == {"A": 1.0, "B": 0.0, "C": 0.25}
    assert request.messages == [
        {"role": "system", "content": f"Tags end in {mark}."},
        {
            "role": "user",
            "content": f"<prompt-{mark}>\nHi?\n</prompt-{mark}> | <first-{mark}>\na\n</first-{mark}> | "
            f"<second-{mark}>\n\n</second-{mark}> | A, B, C | Choice-{mark}:",
        },
    ]


def test_several_turns_and_several_references(tmp_path: Path) -> None:
    text = "user: '{prompt}{reference}{first}{second}{line}'\nverdicts: {A: first, B: second}"
    template = load_template(own(tmp_path, text), PAIR, ("reference",))
    turns = [("system", "Be brief."), ("user", "Hi?"), ("assistant", "Yo."), ("user", "Why?")]
    prompt = [{"role": role, "content": content} for role, content in turns]
    request = template.fill({"prompt": prompt, "first": "a", "second": "b", "reference": ["r", "s"]})
    mark = request.line[-9:-1]
    inner = "\n".join(f"<{role}-{mark}>\n{content}\n</{role}-{mark}>" for role, content in turns)
    references = "\n".join(f"<reference-{mark}>\n{text}\n</reference-{mark}>" for text in "rs")
    assert request.messages[0]["content"].startswith(f"<prompt-{mark}>\n{inner}\n</prompt-{mark}>{references}<first-")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60), st.text(max_size=60))
def test_the_mark_is_made_from_the_content_and_is_in_no_text(first: str, second: str) -> None:
    template = load_template("pairwise", PAIR)
    texts = {"prompt": [{"role": "user", "content": "Hi?"}], "first": first, "second": second}
    request = template.fill(texts)
    assert template.fill(texts) == request
    assert template.fill({**texts, "first": f"{first}."}).line != request.line
    assert request.line[-9:-1] not in first + second


def test_a_mark_that_a_text_contains_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MARK_DIGITS", 2)
    every = {f"{number:02x}" for number in range(256)}
    for free in ("00", "7f", "c4"):
        text = " ".join(sorted(every - {free})).upper()  # contains every other mark, in capitals
        request = load_template("pairwise", PAIR).fill({"prompt": "p", "first": text, "second": "b"})
        assert request.line == f"Verdict-{free}:"


def test_lone_surrogates_do_not_reach_the_request() -> None:
    request = load_template("pairwise", PAIR).fill({"prompt": "p\ud800", "first": "a\udc00", "second": "b"})
    request.messages[1]["content"].encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("{second} ", ""), r"user must have the slot {second}"),
        (GOOD.replace(" {line}", ""), r"user must have the slot {line}"),
        (GOOD.replace("{prompt}", "{prompt} {frist}"), r"unknown slot {frist}: did you mean first"),
        (GOOD.replace("verdicts", "verdict"), r"unknown key 'verdict': did you mean verdicts"),
        (GOOD.replace("user: '", "user: ''\nsystem: '"), r"user must be a text"),
        (GOOD + "system: 3\n", r"system must be a text"),
        (GOOD + "line: Two words\n", r"line must be one word"),
        (GOOD.replace("verdicts: {A: first, B: second}", ""), r"verdicts must map two or more words"),
        (GOOD.replace("B: second", ""), r"verdicts must map two or more words"),
        (
            GOOD.replace("A: first, B", "yes: first, no"),
            r'verdict \'True\' is not one word.*write "yes" and "no" in quotes',
        ),
        (GOOD.replace("B: second", "a: second"), r"differ in nothing but case"),
        (GOOD.replace("B: second", "B: worse"), r"verdict 'B' must mean a number, or one of first, second"),
        (GOOD.replace("B: second", "'B or C': second"), r"'B or C' is not one word"),
        ("- a list\n", r"own.yaml: a mapping"),
        ("user: [\n", r"own.yaml.*not valid YAML"),
        ("", r"own.yaml: a mapping"),
    ],
)
def test_a_template_that_is_not_as_it_must_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        load_template(own(tmp_path, text), PAIR)
    assert str(found.value).count("\n") == 0


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown judge template 'pairwize': did you mean pairwise"):
        load_template("pairwize", PAIR)
    with pytest.raises(UserError, match=r"judge template: no such file: .*gone.yaml"):
        load_template(str(tmp_path / "gone.yaml"), PAIR)
    with pytest.raises(UserError, match=r"must be a name or a path, it is 3"):
        load_template(3, PAIR)  # type: ignore[arg-type]


def test_a_judge_refuses_a_template_when_it_is_built(tmp_path: Path) -> None:
    chat = Scripted(lambda conversation: "")
    with pytest.raises(UserError, match=r"unknown judge template 'scoer'"):
        PairwiseJudge(chat=chat, template="scoer")
    with pytest.raises(UserError, match=r"its verdicts must lie between 0 \(second\) and 1 \(first\)"):
        PairwiseJudge(chat=chat, template=own(tmp_path, GOOD.replace("A: first", "A: 10")))
    with pytest.raises(UserError, match=r"unknown slot {answer}"):
        PairwiseJudge(chat=chat, template=own(tmp_path, GOOD.replace("{first}", "{first} {answer}")))


def test_what_is_kept_by_the_cache_wrapper_hangs_on_the_template_and_not_on_the_pace(tmp_path: Path) -> None:
    chat = Scripted(lambda conversation: "LINE A")
    pair = ([[{"role": "user", "content": "Hi?"}]], ["a"], ["b"])

    def asked(**settings: object) -> int:
        before = len(chat.asked)
        judge = PairwiseJudge(chat=chat, both_orders=False, **settings)  # type: ignore[arg-type]
        assert Cached(judge, folder=str(tmp_path)).prefer(*pair) == [1.0]
        return len(chat.asked) - before

    template = own(tmp_path, GOOD)
    assert asked(template=template) == 1
    assert asked(template=template, concurrency=3, timeout=9.0) == 0
    own(tmp_path, GOOD.replace("{line}'", "Be fair. {line}'"))  # the same file, another text
    assert asked(template=template) == 1
    assert asked(template=template, seed=4) == 1
