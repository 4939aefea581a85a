"""Written judgments: the view of them, what their text alone says, and drawing fewer of the satisfactory ones."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.example import Example, Judgment, Response
from alignment.data.judged_view import downsample, judged
from alignment.data.judgments import cut_off, only_praise
from alignment.data.views import Judged

ASK = [{"role": "user", "content": "Why?"}]
WRONG = "The answer says 14, but 3 + 9 is 12."


def example(*judgments: Judgment, answer: str = "14", score: float | None = None) -> Example:
    return Example(
        ASK, [Response.of(answer, score=score, judgments=list(judgments))], meta={"id": "e", "wrong": [0, 2]}
    )


def test_several_judgments_of_one_answer_are_several_records() -> None:
    found, counts = judged([example(Judgment(WRONG, False), Judgment("Fine.", True), Judgment("Hm.")), example()])
    assert [(item.id, item.judgment, item.satisfactory) for item in found] == [
        ("e:0-0", WRONG, False),
        ("e:0-1", "Fine.", True),
    ]
    assert counts == {"no verdict": 1, "no judgment": 1}


def test_rows_that_judge_one_answer_again_have_ids_of_their_own() -> None:
    found, _ = judged([example(Judgment(WRONG, False)), example(Judgment("Too long.", False)), example()])
    assert [(record.id, record.judgment) for record in found] == [("e", WRONG), ("e#2", "Too long.")]


def test_a_sampled_answer_that_was_cut_is_known() -> None:
    answers = [Response.of(text, judgments=[Judgment(WRONG, False)]) for text in ("14", "15", "16")]
    notes = [{"responses": [0], "cut": [False]}, {"responses": [1, 2], "cut": [True, False]}]
    found, _ = judged([Example(ASK, answers, meta={"id": "e", "sampled": notes}), example(Judgment(WRONG, False))])
    assert [record.cut for record in found] == [False, True, False, False]
    (record,), _ = judged([Example(ASK, answers[:1], meta={"id": "e", "sampled": "by hand"})])
    assert not record.cut


def test_one_judgment_keeps_the_examples_id_and_meta() -> None:
    ((record,), counts) = judged([example(Judgment(WRONG, False))])
    assert (record.id, record.completion[0]["content"], counts) == ("e", "14", {})
    assert record.meta["wrong"] == [0, 2]


@pytest.mark.parametrize(
    ("judgment", "answer", "reason"),
    [
        (Judgment(None, False), "14", "no text"),
        (Judgment(" \n", False), "14", "no text"),
        (Judgment("The response is perfect.", False), "14", "only praise"),
        (Judgment(WRONG, False), " ", "empty answer"),
        (Judgment(None, True), "", "empty answer"),
        (Judgment(WRONG, None), "14", "no verdict"),
    ],
)
def test_what_cannot_be_learnt_from_is_left_out_and_counted(judgment: Judgment, answer: str, reason: str) -> None:
    assert judged([example(judgment, answer=answer)]) == ([], {reason: 1})


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_null_and_blank_judgments_are_the_same(text: str | None) -> None:
    ((record,), counts) = judged([example(Judgment(text, True))])
    assert (record.judgment, record.satisfactory, counts) == (None, True, {})


def test_praise_of_a_satisfactory_answer_and_a_cut_judgment_are_kept() -> None:
    found, counts = judged([example(Judgment("Perfect.", True)), example(Judgment("It should say that the", False))])
    assert [record.judgment for record in found] == ["Perfect.", "It should say that the"]
    assert counts == {"cut judgment": 1}


def test_scores_decide_only_where_asked_and_where_no_verdict_is_given() -> None:
    high, low = example(Judgment("Long."), score=7.0), example(Judgment("Wrong."), score=6.9)
    assert judged([high, low]) == ([], {"no verdict": 2})
    found, counts = judged([high, low], satisfied_from=7)
    assert ([record.satisfactory for record in found], counts) == ([True, False], {})
    stated = example(Judgment("Wrong.", False), score=10.0)
    assert not judged([stated], satisfied_from=7)[0][0].satisfactory
    unscored = [example(Judgment("Long.")), example(Judgment("Long."), score=math.nan)]
    assert judged(unscored, satisfied_from=7) == ([], {"no verdict": 2})


def test_a_scored_answer_without_a_judgment_is_one_without_text() -> None:
    found, counts = judged([example(score=9.0), example(score=2.0), example()], satisfied_from=7)
    assert [(record.judgment, record.satisfactory) for record in found] == [(None, True)]
    assert counts == {"no text": 1, "no judgment": 1}


_JUDGMENTS = st.lists(
    st.builds(
        Judgment,
        text=st.sampled_from([None, "", " ", "Perfect.", WRONG, "It stops in the"]),
        satisfactory=st.sampled_from([None, True, False]),
    ),
    max_size=3,
)
_EXAMPLES = st.lists(
    st.builds(
        lambda judgments, answer, score: example(*judgments, answer=answer, score=score),
        _JUDGMENTS,
        st.sampled_from(["14", " "]),
        st.sampled_from([None, 1.0, 9.0, math.nan]),
    ),
    max_size=4,
)


@settings(derandomize=True, deadline=None)
@given(_EXAMPLES, st.sampled_from([None, 7.0]))
def test_every_judgment_is_a_record_or_counted_once(examples: list[Example], threshold: float | None) -> None:
    found, counts = judged(examples, satisfied_from=threshold)
    left_out = sum(count for reason, count in counts.items() if reason != "cut judgment")
    assert len(found) + left_out == sum(max(1, len(e.responses[0].judgments)) for e in examples)
    for record in found:
        assert record.judgment is None or record.judgment.strip()
        assert record.satisfactory or (record.judgment and not only_praise(record.judgment))


@pytest.mark.parametrize(
    "text",
    [
        "Perfect.",
        "  perfect  ",
        "The response is perfect.",
        '"The answer is correct and complete."',
        "This answer is very good, accurate and complete!",
        "It's already perfect.",
        "No errors found.",
        "There are no weaknesses. Well done!",
        "Correct. Nothing to criticise.",
    ],
)
def test_praise(text: str) -> None:
    assert only_praise(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "The response is not perfect.",
        "The response is almost perfect.",
        "The response is almost perfect, but the poem has 7 lines.",
        "The response is correct. The GPA of 2.7 is generally considered average.",
        "Correct, but too long.",
        "The answer is good enough",
        "The answer could be perfect.",
        "No errors in the first line.",
        WRONG,
    ],
)
def test_no_mere_praise(text: str) -> None:
    assert not only_praise(text)


LONG = "The answer names the wrong day since the text says that the bakery is closed on Monday and"


@pytest.mark.parametrize(
    "text", [LONG, LONG + " Tues", LONG + " Tuesday,", "The response misses the", "First.\nInstead of\n"]
)
def test_cut_judgments(text: str) -> None:
    assert cut_off(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        LONG + " Tuesday.",
        LONG + ' "Tuesday"',
        LONG + " (Tuesday)",
        LONG + " see https://example.org/a-page",
        "Too short",
        "It should be:\n\n* Apple\n* Pear",
        "The",
        "| 1 | 2 |",
        "4 + 5 = 9",
    ],
)
def test_whole_judgments(text: str) -> None:
    assert not cut_off(text)


def records(*satisfactory: bool) -> list[Judged]:
    return [Judged(str(i), ASK, [], None if good else WRONG, good) for i, good in enumerate(satisfactory)]


def test_downsampling_keeps_a_quarter_as_the_authors_do() -> None:
    given_records = records(*[True] * 7, *[False] * 11)
    kept, counts = downsample(given_records, 0.25, seed=1)
    assert sum(record.satisfactory for record in kept) == 2  # int(0.25 × 11)
    assert sum(not record.satisfactory for record in kept) == 11
    assert counts == {"satisfactory beyond the ratio": 5}
    assert kept == downsample(given_records, 0.25, seed=1)[0]
    assert {tuple(r.id for r in downsample(given_records, 0.25, seed)[0]) for seed in range(9)} > {
        tuple(r.id for r in kept)
    }  # the seed decides which


@pytest.mark.parametrize("ratio", [None, 1.0, 50])
def test_downsampling_keeps_all_where_the_ratio_allows(ratio: float | None) -> None:
    given_records = records(True, False, False, True)
    assert downsample(given_records, ratio) == (given_records, {})


@settings(derandomize=True, deadline=None)
@given(st.lists(st.booleans(), max_size=12), st.floats(0, 3), st.integers(0, 5))
def test_downsampling_keeps_the_order_and_every_unsatisfactory_record(
    satisfactory: list[bool], ratio: float, seed: int
) -> None:
    given_records = records(*satisfactory)
    kept, counts = downsample(given_records, ratio, seed)
    assert [record for record in given_records if record in kept] == kept
    assert len(kept) + sum(counts.values()) == len(given_records)
    wrong = satisfactory.count(False)
    assert sum(record.satisfactory for record in kept) == min(satisfactory.count(True), int(ratio * wrong))
    assert sum(not record.satisfactory for record in kept) == wrong


@pytest.mark.parametrize("ratio", [-0.1, math.inf, math.nan])
def test_impossible_ratios(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        downsample([], ratio)
