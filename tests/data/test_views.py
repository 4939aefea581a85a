"""The views: what each method reads, and what is counted as left out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.example import Example, Judgment, Preference, Response
from alignment.data.views import demonstrations, improvements, pairs, prompts, reference_answers, unpaired

ASK = [{"role": "user", "content": "Why?"}]
NAN = math.nan


def example(
    *texts: str, preferences: list[Preference] | None = None, scores: list[float | None] | None = None
) -> Example:
    responses = [Response.of(text) for text in texts]
    for response, score in zip(responses, scores or [None] * len(texts), strict=True):
        response.score = score
    return Example(ASK, responses, preferences or [], {"id": "e"})


def shown(examples: list[Example], **options: str) -> list[tuple[str, str, str, float, float | None]]:
    """(id, chosen, rejected, p_chosen, margin) of each pair."""
    return [
        (pair.id, pair.chosen[0]["content"], pair.rejected[0]["content"], pair.p_chosen, pair.margin)
        for pair in pairs(examples, **options)[0]
    ]


def test_chosen_is_the_preferred_one() -> None:
    assert shown([example("a", "b", preferences=[Preference(0, 1)])]) == [("e", "a", "b", 1.0, None)]
    assert shown([example("a", "b", preferences=[Preference(0, 1, 0.25)])]) == [("e", "b", "a", 0.75, None)]
    assert shown([example("a", "b", preferences=[Preference(1, 0, 0.75, -2.0)])]) == [("e", "b", "a", 0.75, 2.0)]


def test_ties_missing_verdicts_and_equal_texts_are_counted() -> None:
    examples = [
        example("a", "b", preferences=[Preference(0, 1, 0.5)]),
        example("a", "b", preferences=[Preference(0, 1, NAN)]),
        example("a", "a", preferences=[Preference(0, 1)]),
        example("a", "b"),
        example("a"),
        example("a", "b", preferences=[Preference(0, 1)]),
    ]
    found, counts = pairs(examples)
    assert len(found) == 1
    assert counts == {"tie": 1, "no verdict": 1, "identical": 1, "no preference": 2}


def test_annotators_of_one_pair_are_averaged() -> None:
    votes = [
        Preference(0, 1, 1.0),
        Preference(1, 0, 1.0),
        Preference(0, 1, 1.0),
        Preference(0, 1, NAN),
        Preference(0, 1, 0.5),
    ]
    found, counts = pairs([example("a", "b", preferences=votes)])
    assert (found[0].chosen[0]["content"], found[0].p_chosen) == ("a", 2.5 / 4)
    assert counts == {"merged": 3}
    assert pairs([example("a", "b", preferences=votes[:2])]) == ([], {"merged": 1, "tie": 1})


def test_margins_of_annotators_count_for_their_side() -> None:
    votes = [Preference(0, 1, 1.0, 2.0), Preference(0, 1, 1.0, 1.0), Preference(0, 1, 0.0, 1.0)]
    ((_, chosen, _, p_chosen, margin),) = shown([example("a", "b", preferences=votes)])
    assert (chosen, p_chosen, margin) == ("a", pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_ids_tell_pairs_of_one_example_apart() -> None:
    ranked = example("a", "b", "c", preferences=[Preference(0, 1), Preference(2, 1)])
    assert [row[:3] for row in shown([ranked])] == [("e:0-1", "a", "b"), ("e:1-2", "c", "b")]


def test_rated_answers_become_pairs_with_a_margin() -> None:
    rated = example("a", "b", "c", "d", scores=[1.0, 4.0, None, 4.0])
    assert shown([rated]) == [("e:0-1", "b", "a", 1.0, 3.0), ("e:0-3", "d", "a", 1.0, 3.0)]
    assert shown([rated], rated="best_worst") == [("e:0-1", "b", "a", 1.0, 3.0)]
    assert pairs([example("a", "b", scores=[2.0, 2.0])]) == ([], {"tie": 1})
    assert pairs([example("a", "b", scores=[2.0, NAN])])[0] == []
    both = example("a", "b", preferences=[Preference(0, 1)], scores=[1.0, 4.0])
    assert shown([both]) == [("e", "a", "b", 1.0, None)]  # a stated preference goes before scores


def test_wrong_choice_of_rated_pairs() -> None:
    with pytest.raises(ValueError, match="best_worst"):
        pairs([], rated="some")


_VOTES = st.lists(
    st.builds(
        Preference,
        first=st.sampled_from([0, 1]),
        second=st.sampled_from([2, 3]),
        p_first=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]),
    ),
    max_size=6,
)


@settings(derandomize=True, deadline=None)
@given(_VOTES)
def test_pairs_lean_to_chosen_and_the_order_of_two_answers_does_not_matter(votes: list[Preference]) -> None:
    turned = [Preference(vote.second, vote.first, 1.0 - vote.p_first) for vote in votes]
    found, counts = pairs([example("a", "b", "c", "d", preferences=votes)])
    assert all(0.5 < pair.p_chosen <= 1 for pair in found)
    assert (found, counts) == pairs([example("a", "b", "c", "d", preferences=turned)])
    distinct = {(vote.first, vote.second) for vote in votes}
    assert len(found) + counts.get("tie", 0) + counts.get("no verdict", 0) == len(distinct)
    assert counts.get("no preference", 0) == (not votes)


def test_unpaired_labels_and_pairs() -> None:
    labelled = example("a", "b")
    labelled.responses[0].desirable = False
    paired = example("c", "d", preferences=[Preference(0, 1)])
    found, counts = unpaired([labelled, paired, example("e"), example("f", "g", preferences=[Preference(0, 1, 0.5)])])
    assert [(item.id, item.completion[0]["content"], item.desirable) for item in found] == [
        ("e:0", "a", False),
        ("e:chosen", "c", True),
        ("e:rejected", "d", False),
    ]
    assert counts == {"no label": 2, "tie": 1}
    assert len(unpaired([labelled, paired], from_pairs=False)[0]) == 1


def test_improvements_go_from_rejected_to_chosen() -> None:
    found, counts = improvements([example("a", "b", preferences=[Preference(0, 1, 0.0)]), example("a")])
    assert (found[0].reference[0]["content"], found[0].better[0]["content"]) == ("a", "b")
    assert counts == {"no preference": 1}


def test_both_answers_of_a_pair_are_to_be_improved_each_once() -> None:
    first = example("a", "b", preferences=[Preference(0, 1, 0.0)])
    second = example("a", "c", preferences=[Preference(0, 1, 1.0)])
    second.meta["id"], second.meta["gold"] = "f", 3
    found, counts = reference_answers([first, second, example("a")])
    assert [(answer.id, answer.text, answer.kind) for answer in found] == [
        ("e:rejected", "a", "rejected"),
        ("e:chosen", "b", "chosen"),
        ("f:rejected", "c", "rejected"),
    ]
    assert counts == {"no preference": 1, "repeated": 1}  # "a" is the first one's answer, too
    assert found[2].meta == {"id": "f", "gold": 3, "reference": "c"}


def test_prompts_without_repeats() -> None:
    other = Example([{"role": "system", "content": "Be brief."}, *ASK], meta={"id": "o"})
    found, counts = prompts([example("a"), other, example("b")])
    assert [(prompt.id, len(prompt.messages)) for prompt in found] == [("e", 1), ("o", 2)]
    assert counts == {"repeated": 1}


def demonstration_texts(examples: list[Example]) -> tuple[list[str], dict[str, int]]:
    found, counts = demonstrations(examples)
    return [item.completion[0]["content"] for item in found], counts


def test_demonstrations_are_the_best_answers() -> None:
    prompt = [{"role": "user", "content": "Hi"}]
    a, b, c = (Response.of(text) for text in "abc")
    scored = [Response.of("low", score=1.0), Response.of("high", score=3.0), Response.of("as high", score=3.0)]
    examples = [
        Example(prompt, [a]),
        Example(prompt, [a, b, c], [Preference(0, 1, 0.2), Preference(1, 2, 0.9)]),
        Example(prompt, scored),
        Example(prompt, [Response.of("liked", desirable=True), Response.of("not", desirable=False)]),
    ]
    assert demonstration_texts(examples) == (["a", "b", "high", "as high", "liked"], {})


def test_demonstrations_leave_out_what_is_not_to_be_imitated() -> None:
    prompt = [{"role": "user", "content": "Hi"}]
    examples = [
        Example(prompt, [Response.of("bad", desirable=False)]),
        Example(prompt, [Response.of("judged", judgments=[Judgment("wrong", satisfactory=False)])]),
        Example(prompt, []),
        Example(prompt, [Response.of("one"), Response.of("other")]),
        Example(prompt, [Response.of("one"), Response.of("other")], [Preference(0, 1, 0.5)]),
        Example(prompt, [Response.of("one"), Response.of("other")], [Preference(0, 1, float("nan"))]),
    ]
    assert demonstration_texts(examples) == ([], {"not to imitate": 2, "no answer": 1, "tie": 3})
