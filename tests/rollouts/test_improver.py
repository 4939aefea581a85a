"""`Improver` from Python, with a model and with a script in its place; and an improver behind a sampler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import alignment
from alignment import Improver, ImprovingSampler
from alignment.config import ModelConfig
from alignment.data.templates import encode_prompt
from alignment.errors import UserError
from alignment.feedback.rules import Length, PlainWords
from alignment.models.loading import load_model, load_tokenizer
from alignment.models.scores import Scorer, new_scorer
from alignment.rollouts.improver import Improving, as_given_gap
from alignment.rollouts.proposers import Asker
from alignment.rollouts.sampler import PolicySampler, Sampler
from alignment.rollouts.sampling import SamplingSettings
from alignment.trainers.expert_iteration import ExpertIterationTrainer
from tests.rollouts.scripted import ScriptedSampler, tokenizer
from tests.trainers.online_runs import config, prompts

FAST: dict[str, Any] = {"max_new_tokens": 8, "dtype": "float32", "temperature": 1.0}
QUESTIONS = ["Name a fruit.", "Why is the sky blue?", "Hi!", "What is rain?"]
ANSWERS = ["A carrot.", "It mirrors the sea.", "Go away.", "Water, water, water."]


def scripted(improver: Improver, reply: Any, temperature: float = 1.0) -> ScriptedSampler:
    """The improver with a script for its model."""
    sampler = ScriptedSampler(reply, temperature)
    improver.model.asker = Asker(sampler, tokenizer())
    return sampler


def test_answers_become_longer_as_long_as_a_length_is_the_gap() -> None:
    improver = Improver("tiny", Length(unit="words"), rounds=4)
    words = iter(["A ripe pear.", "A ripe, sweet pear.", "Pear."])
    scripted(improver, lambda text, number: next(words))
    (found,) = improver(["Name a fruit."], ["A pear."])
    assert found.text == "A ripe, sweet pear." and len(found.rounds) == 3
    assert [each.gap for each in found.rounds] == [1.0, 1.0, -3.0]


def test_with_a_model_rows_are_independent_of_the_batch_and_the_others() -> None:
    model, own = load_model(ModelConfig(path="tiny")), load_tokenizer(ModelConfig(path="tiny"))

    def improved(batch_size: int, rows: list[int]) -> dict[int, Any]:
        improver = Improver(model, PlainWords(), tokenizer=own, rounds=3, batch_size=batch_size, seed=5, **FAST)
        found = improver([QUESTIONS[row] for row in rows], [ANSWERS[row] for row in rows])
        return {
            row: (each.stopped, [(r.text, r.kept, r.proposal.drawn) for r in each.rounds])
            for row, each in zip(rows, found, strict=True)
        }

    whole = improved(8, [0, 1, 2, 3])
    assert improved(1, [3, 1]) == {row: whole[row] for row in (3, 1)}
    assert improved(3, [2, 0, 2]) == {row: whole[row] for row in (2, 0)}  # the same row twice is the same
    assert len({json.dumps(each) for each in whole.values()}) == 4
    assert all(1 <= len(rounds) <= 3 for _, rounds in whole.values())


def test_the_policy_answers_first_where_there_are_no_answers() -> None:
    improver = Improver("tiny", policy="tiny", rounds=1, **FAST)
    assert improver.policy is not None
    improver.policy.asker = Asker(ScriptedSampler(lambda text, number: "A plum."), tokenizer())
    sampler = scripted(improver, lambda text, number: "A pear.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a fruit."}]
    first, second = improver([messages, "Hi!"])
    assert (first.original, first.text) == ("A plum.", "A pear.") == (second.original, second.text)
    assert all("Answer: A plum." in asked for asked in sampler.asked) and "Be brief." in sampler.asked[0]


def test_ways() -> None:
    refine = Improver("tiny", way="self_refine", rounds=1)
    scripted(refine, lambda text, number: "Better." if "Feedback:" in text else "Too short.")
    (found,) = refine(["Name a fruit."], ["A pear."])
    assert found.text == "Better." and found.rounds[0].proposal.critique == "Too short."
    anew = Improver("tiny", way="resample", rounds=2)
    sampler = scripted(anew, lambda text, number: f"Fruit {number % 100}.")
    (found,) = anew(["Name a fruit."], ["A pear."])
    assert found.rounds[0].text != found.rounds[1].text and "pear" not in sampler.asked[1]


def test_settings_are_those_of_the_run_that_made_the_model(tmp_path: Path) -> None:
    pit = {"template": "alpaca", "max_reference_length": 77}
    for method, wanted in (("pit_sft", "alpaca"), ("dpo", "chat")):
        config = {"method": method, "pit": pit, "data": {"template": "chat"}}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        settings = Improving().as_trained(str(tmp_path))
        assert (settings.improvement_template, settings.max_reference_length) == (wanted, 77)
    given = Improving(max_reference_length=5, improvement_template="chat").as_trained(str(tmp_path))
    assert (given.improvement_template, given.max_reference_length) == ("chat", 5)
    assert Improving().as_trained("tiny").max_reference_length == 256
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"template": "raw"}}))
    raw = Improving().as_trained(str(tmp_path))
    assert (raw.template, raw.improvement_template, raw.refine_template) == ("raw", "alpaca", "alpaca")


def test_what_is_refused() -> None:
    for wrong, says in (
        (lambda: Improver("tinny"), "did you mean tiny"),
        (lambda: Improver("tiny", "plain_word"), "did you mean plain_words"),
        (lambda: Improver("tiny", object()), "object has none of the methods"),
        (lambda: Improver("tiny", roundes=3), "Improver has no setting roundes"),
        (lambda: Improver("tiny", rounds=0), "rounds=0: must be at least 1"),
        (lambda: Improver("tiny", temperature=-1), "temperature=-1"),
        (lambda: Improver("tiny", way="guess"), "unknown way to improve 'guess'"),
        (lambda: Improver("tiny", rule="best"), "needs a gap"),
        (lambda: Improver("tiny", improvement_template="chatt"), "did you mean chat"),
        (lambda: Improver(object()), "a loaded model needs its tokenizer"),
        (lambda: Improver("tiny")(["Hi!"]), "no policy to answer first"),
        (lambda: Improver("tiny")(["Hi!"], []), "1 prompts and 0 answers"),
        (lambda: Improver("tiny")("Hi!", "Ho."), "a list of prompts"),
    ):
        with pytest.raises(UserError) as caught:
            wrong()
        assert says in str(caught.value), says


def test_a_reward_is_a_gap_and_a_preference_model_is_not(tmp_path: Path) -> None:
    assert as_given_gap(None) is None
    gap = as_given_gap(PlainWords())
    assert gap is not None and as_given_gap(gap) is gap
    for kind, heads in (("reward", 1), ("preference", 1)):
        model = new_scorer(ModelConfig(path="tiny"), heads, seed=0)
        model.save_pretrained(tmp_path / kind)
        tokenizer().save_pretrained(tmp_path / kind)
        Scorer(kind).save(tmp_path / kind)
    reward = as_given_gap(str(tmp_path / "reward"))
    assert reward is not None
    twice = [[{"role": "user", "content": "Hi!"}]] * 2
    there, none = reward.gap(twice, ["Hello.", "Go."], ["Go.", "Go."])
    assert abs(there) > 1e-3 and none == pytest.approx(0.0, abs=1e-5)  # two rows of a batch differ by rounding
    with pytest.raises(UserError, match="is a preference model"):
        as_given_gap(str(tmp_path / "preference"))


def test_a_sampler_answers_improves_and_answers() -> None:
    improver = Improver("tiny", Length(unit="words"), rounds=2)
    scripted(improver, lambda text, number: f"A ripe, sweet pear of kind {number % 50}." if "fruit" in text else "Ho.")
    policy = ScriptedSampler(lambda text, number: f"A pear {number % 1000}." if "fruit" in text else "Good day to you.")
    questions = [[{"role": "user", "content": text}] for text in ("Name a fruit.", "Hi!")]
    sampler: Sampler = ImprovingSampler(policy, improver, questions)
    ids = [encode_prompt(tokenizer(), prompt) for prompt in questions]
    found = sampler.sample(ids, k=2, seed=1)
    assert [rollout.prompt for rollout in found] == [tuple(own) for own in ids for _ in range(2)]
    assert all(rollout.text.startswith("A ripe, sweet pear") for rollout in found[:2])
    assert found[0].text != found[1].text  # each of the two was improved from its own
    assert [rollout.text for rollout in found[2:]] == ["Good day to you."] * 2  # no better one was found
    for rollout in found:
        assert tokenizer().decode(rollout.completion, skip_special_tokens=True).strip() == rollout.text
    assert sampler.sample(ids, k=2, seed=1) == found != sampler.sample(ids, k=2, seed=2)
    with pytest.raises(UserError, match="1 prompts are not among those"):
        sampler.sample([ids[0], [1, 2, 3]])


def test_a_sampler_of_models() -> None:
    model, own = load_model(ModelConfig(path="tiny")), load_tokenizer(ModelConfig(path="tiny"))
    policy = PolicySampler(model, own, SamplingSettings(8, 1.0))
    questions = [[{"role": "user", "content": text}] for text in QUESTIONS[:2]]
    improver = Improver(model, PlainWords(), tokenizer=own, rounds=2, rule="best", **FAST)
    sampler = ImprovingSampler(policy, improver, questions)
    ids = [encode_prompt(own, prompt) for prompt in questions]
    asked = [prompt for prompt in questions for _ in range(3)]
    before = PlainWords().score(asked, [rollout.text for rollout in policy.sample(ids, 3, 0)])
    after = PlainWords().score(asked, [rollout.text for rollout in sampler.sample(ids, 3, 0)])
    assert all(new >= old for new, old in zip(after, before, strict=True)) and sum(after) > sum(before)
    assert sampler.settings is policy.settings


def test_a_trainer_learns_from_improved_answers(tmp_path: Path) -> None:
    settings = config("expert_iteration", steps=2)
    feedback = Length(unit="words")
    trainer = ExpertIterationTrainer(config=settings, train=prompts(), folder=tmp_path, feedback=feedback)
    improver = Improver("tiny", feedback, rounds=1)
    scripted(improver, lambda text, number: " ".join(["word"] * 40))
    asked = [record.prompt for record in trainer.data.records.values()]
    trainer.sampler = ImprovingSampler(trainer.sampler, improver, asked)
    trainer.train()
    assert trainer.experience and all(unit.texts == (" ".join(["word"] * 40),) for unit in trainer.experience)
    assert all(unit.rewards == (40.0,) for unit in trainer.experience)


def test_they_are_exported() -> None:
    assert {"Improver", "ImprovingSampler"} <= set(alignment.__all__)
