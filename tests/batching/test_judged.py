"""Judged answers as groups of token ids: which prompts, what is counted, and where in the tokens a span lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.batching import judged as module
from alignment.batching.judged import AFTER, judged_units, span_of_tokens
from alignment.config import DataConfig, ModelConfig
from alignment.data.judgment_prompts import load_judgment_template
from alignment.errors import UserError
from alignment.models.loading import load_tokenizer
from tests.trainers.judgments import some_judgments

CHAT, ALPACA = load_judgment_template("chat"), load_judgment_template("alpaca")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ModelConfig(path="tiny"))


def read(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return tokenizer.decode(ids)


def test_the_groups_of_cut(tokenizer: Any) -> None:
    records = some_judgments()
    units, counts = judged_units(records, tokenizer, DataConfig(), CHAT, "cut")
    assert counts.as_dict()["answers"] == 6 and [unit.id for unit in units] == [record.id for record in records]
    for unit, record in zip(units, records, strict=True):
        assert unit.values == {"satisfactory": float(record.satisfactory)}
        assert (len(unit.groups), len(unit.aside)) == ((1, 0) if record.satisfactory else (2, 1))
        answers = {completion for group in (*unit.groups, *unit.aside) for completion in group.completions}
        assert len(answers) == 1  # the same ids in all groups
        question = record.prompt[0]["content"]
        plain, *others = [read(tokenizer, group.prompt) for group in (*unit.groups, *unit.aside)]
        assert question in plain and "judgment" not in plain.lower()
        for prompt, judgment in zip(others, (record.judgment, CHAT.positive), strict=False):
            assert question in prompt and judgment is not None and judgment in prompt
        assert read(tokenizer, unit.groups[0].completions[0]).startswith(record.completion[0]["content"])
        assert unit.groups[0].completions[0][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("form", ["cut", "hindsight", "conditional", "plain"])
def test_no_end_is_learnt_from_an_answer_that_was_cut(form: Any, tokenizer: Any) -> None:
    whole = some_judgments()
    cut = [replace(record, cut=True) for record in whole]
    both = [judged_units(records, tokenizer, DataConfig(), CHAT, form)[0] for records in (whole, cut)]
    for unit, other in zip(*both, strict=True):
        groups = [(*each.groups, *each.aside) for each in (unit, other)]
        for group, without in zip(*groups, strict=True):
            assert group.prompt == without.prompt and group.completions[0][-1] == tokenizer.eos_token_id
            assert without.completions == (group.completions[0][:-1],)


@pytest.mark.parametrize(
    ("form", "good", "bad"),  # what stands in the prompts of the groups: nothing, the judgment, or praise
    [
        ("authors_code", ["plain"], ["plain", "judgment"]),
        ("hindsight", ["plain"], ["judgment"]),
        ("conditional", ["praise"], ["judgment"]),
        ("forward_prediction", ["plain"], ["plain"]),
        ("plain", ["plain"], ["plain"]),
        ("satisfactory", ["plain"], None),
    ],
)
def test_the_groups_of_the_baselines(form: Any, good: list[str], bad: list[str] | None, tokenizer: Any) -> None:
    records = some_judgments()
    units, _ = judged_units(records, tokenizer, DataConfig(), CHAT, form)
    by_id = {unit.id: unit for unit in units}
    for record in records:
        wanted = good if record.satisfactory else bad
        if wanted is None:
            assert record.id not in by_id
            continue
        unit = by_id[record.id]
        assert not unit.aside and len(unit.groups) == len(wanted)
        for group, kind in zip(unit.groups, wanted, strict=True):
            prompt = read(tokenizer, group.prompt)
            assert ("Judgment:" in prompt) == (kind != "plain")
            assert (CHAT.positive in prompt) == (kind == "praise")
            assert kind != "judgment" or record.judgment in prompt
            behind = read(tokenizer, group.completions[0]).count(AFTER.strip())
            assert behind == (form == "forward_prediction")


def test_forward_prediction_writes_the_judgment_behind_the_end_of_the_answer(tokenizer: Any) -> None:
    units, counts = judged_units(some_judgments(), tokenizer, DataConfig(), CHAT, "forward_prediction")
    plain, _ = judged_units(some_judgments(), tokenizer, DataConfig(), CHAT, "plain")
    for unit, alone, record in zip(units, plain, some_judgments(), strict=True):
        whole, answer = unit.groups[0].completions[0], alone.groups[0].completions[0]
        assert whole[: len(answer)] == answer and whole[-1] == tokenizer.eos_token_id
        behind = tokenizer.decode(whole[len(answer) : -1], skip_special_tokens=True)
        assert behind.strip() == f"{AFTER}{record.judgment or CHAT.positive}".strip()
    assert counts.truncated == 0
    _, counts = judged_units(
        some_judgments(), tokenizer, DataConfig(max_completion_length=8), CHAT, "forward_prediction"
    )
    assert counts.truncated == 6


def test_plain_text_without_a_chat_template(tokenizer: Any) -> None:
    units, _ = judged_units(some_judgments(), tokenizer, DataConfig(template="raw"), ALPACA, "cut")
    text = read(tokenizer, units[0].groups[1].prompt)
    assert text.endswith("### Judgment:\nThe answer says 14, but 3 + 9 is 12.\n\n### Response:\n")
    assert units[0].groups[0].completions == units[0].groups[1].completions == units[0].aside[0].completions


def test_what_is_too_long_is_counted_and_left_out_or_ends_the_run(tokenizer: Any) -> None:
    records = some_judgments()
    everyone, _ = judged_units(records, tokenizer, DataConfig(), CHAT, "cut")
    longest_plain = max(len(unit.groups[0].prompt) for unit in everyone)
    data = DataConfig(max_prompt_length=longest_plain, max_completion_length=3)
    units, counts = judged_units(records, tokenizer, data, CHAT, "cut")
    assert counts.judgment_too_long == [record.id for record in records if not record.satisfactory]
    assert counts.as_dict()["judgment_too_long"] == 3 and len(units) == 3 and not counts.prompt_too_long
    assert counts.truncated == 6 and all(len(group.completions[0]) == 3 for unit in units for group in unit.groups)
    hindsight, counts = judged_units(records, tokenizer, data, CHAT, "hindsight")
    assert len(hindsight) == 3 and len(counts.judgment_too_long) == 3
    with pytest.raises(
        UserError, match=r"the prompt of answer-0 has \d+ tokens with its judgment, data.max_prompt_length"
    ):
        judged_units(records, tokenizer, replace(data, on_bad_row="stop"), CHAT, "cut")
    bad = [record for record in records if not record.satisfactory]
    with pytest.raises(UserError, match=r"no answer is left of 3: 0 prompts, and 3 with a judgment, over"):
        judged_units(bad, tokenizer, data, CHAT, "cut")


def test_an_answer_cut_in_front_of_what_is_judged_is_counted_and_left_out(tokenizer: Any) -> None:
    known, *others = some_judgments()  # of the first one it is known that characters 6 to 8 are wrong
    ids = tokenizer("It is 14.", add_special_tokens=False)["input_ids"]
    first, _ = span_of_tokens(tokenizer, ids, "It is 14.", *known.meta["wrong"]) or (0, 0)
    for length, kept in ((first, False), (first + 1, True)):
        data = DataConfig(max_completion_length=length)
        units, counts = judged_units([known, *others], tokenizer, data, CHAT, "cut")
        assert ("answer-0" in [unit.id for unit in units]) == kept
        assert counts.judged_part_cut == ([] if kept else ["answer-0"])
    data = DataConfig(max_completion_length=first)
    assert len(judged_units([known], tokenizer, data, CHAT, "plain")[0]) == 1  # no judgment is read there
    with pytest.raises(UserError, match="0 equal and 1 with what is judged cut off within data.max_completion_length"):
        judged_units([known], tokenizer, data, CHAT, "hindsight")


def test_an_unsatisfactory_answer_needs_a_judgment_where_one_is_read(tokenizer: Any) -> None:
    nameless = [replace(some_judgments()[0], judgment=None)]
    with pytest.raises(UserError, match="answer-0: an unsatisfactory answer needs a judgment"):
        judged_units(nameless, tokenizer, DataConfig(), CHAT, "cut")
    assert judged_units(nameless, tokenizer, DataConfig(), CHAT, "plain")[0]


def test_an_answer_that_a_template_writes_differently_is_refused(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "encode_pair", lambda *_: ([1, 2], [3, 4]))
    with pytest.raises(UserError, match="answer-0: with a judgment in the prompt the chat template writes the answer"):
        judged_units(some_judgments(), tokenizer, DataConfig(), CHAT, "cut")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab 19.,éß\n", min_size=1, max_size=20), st.data())
def test_a_span_is_written_by_its_tokens_and_by_no_fewer(tokenizer: Any, text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    found = span_of_tokens(tokenizer, ids, text, start, end)
    assert found is not None
    first, behind = found
    before, inside = tokenizer.decode(ids[:first]), tokenizer.decode(ids[first:behind], skip_special_tokens=True)
    if "�" not in before + inside:  # where a token ends inside a letter, characters cannot tell them apart
        assert len(before) <= start and len(before) + len(inside) >= end
        last = tokenizer.decode(ids[behind - 1 : behind])
        assert "�" in last or len(before) + len(inside) - len(last) < end
        assert first + 1 == behind or len(tokenizer.decode(ids[: first + 1])) > start


def test_a_span_behind_the_cut_is_none(tokenizer: Any) -> None:
    text = "The answer is 14, I believe."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    first, behind = span_of_tokens(tokenizer, ids, text, 14, 16) or (0, 0)
    assert tokenizer.decode(ids[first:behind]).strip() == "14"
    assert span_of_tokens(tokenizer, ids[:2], text, 14, 16) is None
    assert span_of_tokens(tokenizer, ids, text, 20, 90) is None and span_of_tokens(tokenizer, ids, text, 5, 5) is None
