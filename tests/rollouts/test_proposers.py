"""What an improver, Self-Refine and the policy are asked, what it costs, and which rows share an answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from alignment.data.improvement_prompts import load_improvement_template
from alignment.data.refine_prompts import load_refine_template
from alignment.rollouts.proposers import Asker, Improvement, Resampling, SelfRefine
from tests.rollouts.scripted import ScriptedSampler, tokenizer

PROMPT = [{"role": "user", "content": "Name a fruit."}]
OTHER = [{"role": "user", "content": "Name a bird."}]
IMPROVE, REFINE = load_improvement_template("chat"), load_refine_template("chat")


def numbered(text: str, number: int) -> str:
    return f"Answer {number % 1000}"


def tokens(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False)["input_ids"])


def test_the_improver_is_shown_the_answer_and_a_long_one_loses_its_end() -> None:
    sampler = ScriptedSampler(lambda text, number: "A pear.")
    improver = Improvement(Asker(sampler, tokenizer()), IMPROVE, limit=4)
    short, long = improver.propose([PROMPT] * 2, ["A plum.", "one two three four five six seven"], seed=0)
    assert short is not None and long is not None
    assert (short.text, short.reference_cut, long.reference_cut) == ("A pear.", False, True)
    assert "Answer: A plum." in sampler.asked[0] and "Name a fruit." in sampler.asked[0]
    assert "[…]" in sampler.asked[1] and "seven" not in sampler.asked[1]
    assert short.drawn == tokens("A pear.") + 1  # with the end token
    assert short.rollout is not None and short.read == len(short.rollout.prompt)


def test_an_empty_answer_asks_the_plain_question_as_the_policy_is_asked() -> None:
    sampler = ScriptedSampler(numbered)
    asker = Asker(sampler, tokenizer())
    improver, policy = Improvement(asker, IMPROVE, 100), Resampling(asker, IMPROVE)
    assert improver.propose([PROMPT], [" "], seed=3) == policy.propose([PROMPT], ["A plum."], seed=3)
    assert sampler.asked[0] == sampler.asked[1] and "Answer:" not in sampler.asked[0]


def test_equal_rows_share_a_proposal_unless_asked_anew_and_the_seed_changes_it() -> None:
    policy = Resampling(Asker(ScriptedSampler(numbered), tokenizer()), IMPROVE)
    rows = [PROMPT, OTHER, PROMPT]
    first, other, again = policy.propose(rows, [""] * 3, seed=0)
    assert first == again != other
    assert policy.propose([PROMPT], [""], seed=0) == [first]  # whatever else is asked
    assert policy.propose([PROMPT], [""], seed=1) != [first]
    fresh = policy.propose(rows, [""] * 3, seed=0, anew=True)
    assert fresh[0] == first and fresh[2] != first


def test_a_prompt_without_room_has_no_proposal_and_the_others_do() -> None:
    asker = Asker(ScriptedSampler(numbered), tokenizer(), longest=60)
    improver = Improvement(asker, IMPROVE, limit=200)
    found = improver.propose([PROMPT] * 3, ["A plum.", "word " * 80, "A pear."], seed=0, anew=True)
    assert [each is None for each in found] == [False, True, False]


def test_room_is_what_the_models_positions_leave() -> None:
    class Model:
        class config:
            @staticmethod
            def get_text_config() -> object:
                return type("Config", (), {"max_position_embeddings": 100})

    sampler = ScriptedSampler(numbered, max_new_tokens=30)
    assert Asker(sampler, tokenizer()).room == math.inf
    sampler.model = Model()  # type: ignore[attr-defined]
    assert Asker(sampler, tokenizer()).room == 70
    assert Asker(sampler, tokenizer(), longest=50).room == 50


def refining(text: str, number: int) -> str:
    if "Feedback:" in text:
        return "A ripe pear."
    return "Nothing to improve." if "A pear." in text else "It is a vegetable."


def test_self_refine_criticises_and_writes_anew() -> None:
    sampler = ScriptedSampler(refining)
    (found,) = SelfRefine(Asker(sampler, tokenizer()), REFINE, 100).propose([PROMPT], ["A carrot."], seed=0)
    assert found is not None and (found.text, found.critique) == ("A ripe pear.", "It is a vegetable.")
    assert not found.satisfied and "Feedback: It is a vegetable." in sampler.asked[1]
    assert found.drawn == tokens("It is a vegetable.") + tokens("A ripe pear.") + 2
    assert found.rollout is not None and found.read > len(found.rollout.prompt)  # of both requests


def test_a_critique_that_finds_nothing_leaves_the_answer() -> None:
    sampler = ScriptedSampler(refining)
    good, bad = SelfRefine(Asker(sampler, tokenizer()), REFINE, 100).propose(
        [PROMPT, OTHER], ["A pear.", "A carrot."], seed=0
    )
    assert good is not None and bad is not None and len(sampler.asked) == 3
    assert good.satisfied and good.text == "A pear." and good.critique == "Nothing to improve."
    assert good.drawn == tokens("Nothing to improve.") + 1 and bad.text == "A ripe pear."


def test_self_refine_without_room() -> None:
    asker = Asker(ScriptedSampler(lambda text, number: "word " * 60), tokenizer(), longest=150)
    refine = SelfRefine(asker, REFINE, 500)
    assert refine.propose([PROMPT], ["word " * 200], seed=0) == [None]  # for the critique
    assert refine.propose([PROMPT], ["word " * 60], seed=0) == [None]  # for the answer with it
    quiet = replace(asker, sampler=ScriptedSampler(refining))
    assert SelfRefine(quiet, REFINE, 500).propose([PROMPT], ["word " * 60], seed=0)[0] is not None


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_greedy_is_temperature_0(temperature: float) -> None:
    asker = Asker(ScriptedSampler(numbered, temperature), tokenizer())
    for proposer in (Improvement(asker, IMPROVE, 9), Resampling(asker, IMPROVE), SelfRefine(asker, REFINE, 9)):
        assert proposer.greedy == (temperature == 0)
