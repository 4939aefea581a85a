"""Rollouts of one model: exact log-probs on many architectures, rows that do not know of each other, dropped rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from alignment.errors import UserError
from alignment.models.logps import causal_lm
from alignment.rollouts import decode as loop
from alignment.rollouts.prefix_check import deviation, why_not_shared
from alignment.rollouts.sampler import PolicySampler, cut
from alignment.rollouts.sampling import SamplingSettings, draw, random_numbers
from tests.batching.architectures import PADDED, SHARED, build
from tests.rollouts.policies import END, PROMPTS, Numbers, next_logits, sampled, scored

SHORT = SamplingSettings(max_new_tokens=12)
GEMMA = "Gemma 3, window in some layers"
MAIN = ["Llama", "Qwen3", "Mistral, window", "Gemma 2, window in some layers", GEMMA, "GPT-2"]
# Kinds of their own: absolute positions, ALiBi, layers that share keys, experts, no `logits_to_keep`.
OTHERS = ["OPT", "BLOOM", "MPT", "Gemma 3n, window in some layers", "GPT-OSS, window in some layers", "GPT-J"]
GENERATED = ["Mamba", "LFM2", "Qwen3-Next", "Falcon-H1", "RWKV", "RecurrentGemma"]


def by_hand(model: Any, prompt: tuple[int, ...], uniform: Any, settings: SamplingSettings) -> tuple[list[int], list]:
    """One completion, without cache, padding or batch."""
    ids: list[int] = []
    logps: list[float] = []
    for number in torch.from_numpy(uniform):
        token, logp = draw(next_logits(model, [*prompt, *ids]), number[None], settings)
        ids.append(int(token))
        logps.append(float(logp))
        if ids[-1] == END:
            break
    return ids, logps


@pytest.mark.parametrize("name", [*MAIN, *OTHERS, *GENERATED])
def test_log_probs_are_those_of_scoring(name: str) -> None:
    model = build(name)
    assert (why_not_shared(model) is not None) == (name in GENERATED)
    rollouts = PolicySampler(model, Numbers(), SHORT).sample(PROMPTS, k=2, seed=3)
    torch.testing.assert_close(sampled(rollouts), scored(model, rollouts), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["Llama", GEMMA, "LFM2"])
@pytest.mark.parametrize(
    "settings",
    [SHORT, SamplingSettings(max_new_tokens=12, temperature=0.7, top_p=0.8, top_k=20, batch_size=4)],
    ids=["plain", "filtered"],
)
def test_against_one_row_at_a_time_by_hand(name: str, settings: SamplingSettings) -> None:
    model = build(name)
    prompts = [PROMPTS[1], PROMPTS[0], PROMPTS[1]]  # one comes again, and is answered anew
    rollouts = PolicySampler(model, Numbers(), settings).sample(prompts, k=2, seed=5)
    rows = [prompt for prompt in prompts for _ in range(2)]
    assert [rollout.prompt for rollout in rollouts] == rows
    assert len({rollout.completion for rollout in rollouts}) == 6
    for rollout, uniform in zip(rollouts, random_numbers(rows, 12, seed=5), strict=True):
        ids, logps = by_hand(model, rollout.prompt, uniform, settings)
        assert list(rollout.completion) == ids
        assert rollout.logps == pytest.approx(logps, abs=1e-5)


def test_temperature_is_in_the_log_probs() -> None:
    model = build("Llama")
    rollouts = PolicySampler(model, Numbers(), SamplingSettings(12, temperature=0.6)).sample(PROMPTS)
    torch.testing.assert_close(sampled(rollouts), scored(model, rollouts, 0.6), atol=1e-5, rtol=0)
    assert not torch.allclose(sampled(rollouts), scored(model, rollouts), atol=0.1)


@pytest.mark.parametrize("name", ["Llama", GEMMA, "LFM2"])
def test_a_rollout_depends_on_its_prompt_and_the_seed_alone(name: str) -> None:
    model = build(name)
    ends = {END, *range(40, 60)}
    model.generation_config.eos_token_id = sorted(ends)  # rows finish at many times, and are dropped
    prompts = [(*PROMPTS[i % 3], 20 + i) for i in range(5)]
    settings = [SamplingSettings(20, batch_size=size) for size in (32, 4, 1)]
    together, fours, ones = (PolicySampler(model, Numbers(), each).sample(prompts, k=2, seed=1) for each in settings)
    lengths = {len(rollout.completion) for rollout in together}
    assert len(lengths) > 5 and any(rollout.finished for rollout in together)
    ids = [rollout.completion for rollout in together]
    assert [rollout.completion for rollout in fours] == ids == [rollout.completion for rollout in ones]
    alone = PolicySampler(model, Numbers(), settings[0]).sample([prompts[4]], k=2, seed=1)
    assert [rollout.completion for rollout in alone] == ids[8:10]
    assert PolicySampler(model, Numbers(), settings[0]).sample([prompts[4]], k=2, seed=2) != alone
    for rollout in together:
        assert rollout.finished == (rollout.completion[-1] in ends)
        assert not ends.intersection(rollout.completion[:-1])
        assert rollout.finished or len(rollout.completion) == 20
        assert len(rollout.logps) == len(rollout.completion)
        assert rollout.text == Numbers().decode(rollout.completion, True)


def test_finished_rows_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama")
    model.generation_config.eos_token_id = [END, *range(40, 80)]
    rows: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    assert why_not_shared(model) is None
    rows.clear()
    rollouts = PolicySampler(model, Numbers(), SamplingSettings(30)).sample(PROMPTS, k=8, seed=0)
    assert rows[0] == (3, 6)  # each prompt once
    widths = [count for count, _ in rows[1:]]
    assert 12 < widths[0] <= 24 and widths == sorted(widths, reverse=True) and widths[-1] < 12
    for t, width in enumerate(widths):
        running = sum(len(rollout.completion) > t + 1 for rollout in rollouts)
        assert running <= width and (running > loop.FULL_ENOUGH * width or width == running)


def test_greedy_is_that_of_generate() -> None:
    model = build("Qwen3")
    found = PolicySampler(model, Numbers(), SamplingSettings(20, temperature=0)).sample(PROMPTS)
    for rollout in found:
        ids = torch.tensor([rollout.prompt])
        expected = model.generate(ids, do_sample=False, max_new_tokens=20, eos_token_id=END, pad_token_id=0)
        assert rollout.completion == tuple(expected[0, len(rollout.prompt) :].tolist())
        assert set(rollout.logps) == {0.0}  # nothing else could have been drawn


def test_bfloat16() -> None:
    """Scoring a rollout again differs by bfloat16's rounding alone: as much as two layouts of scoring do."""
    model = build("Llama").to(torch.bfloat16)
    rollouts = PolicySampler(model, Numbers(), SHORT).sample(PROMPTS, k=8)
    assert (sampled(rollouts) - scored(model, rollouts)).abs().mean() < 0.03


def test_the_model_and_the_random_state_are_left_as_they_were() -> None:
    model = build("LFM2").train()
    own, state = model.generation_config, torch.random.get_rng_state()
    PolicySampler(model, Numbers(), SHORT).sample(PROMPTS)
    assert model.training and model.generation_config is own
    assert torch.equal(torch.random.get_rng_state(), state)


def test_settings_of_the_model_do_not_change_the_distribution() -> None:
    for name in ("Llama", "LFM2"):
        model = build(name)
        plain = PolicySampler(model, Numbers(), SHORT).sample(PROMPTS)
        model.generation_config.update(repetition_penalty=5.0, top_k=1, temperature=0.01, do_sample=True)
        assert PolicySampler(model, Numbers(), SHORT).sample(PROMPTS) == plain


def test_a_model_that_ignores_positions_is_sampled_by_generate() -> None:
    """The probe sees a wrong cache, whatever the model says of itself."""
    model = build("Llama")
    assert deviation(model)[0] < 1e-5
    broken = copy.deepcopy(model)
    broken.model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"position_ids": None}), with_kwargs=True
    )
    broken.model.register_forward_pre_hook(
        lambda module, args, kwargs: (args, kwargs | {"attention_mask": None}), with_kwargs=True
    )
    assert deviation(broken)[0] > 0.05
    assert "off by" in (why_not_shared(broken) or "")
    found, expected = (PolicySampler(each, Numbers(), SHORT).sample(PROMPTS, k=2, seed=3) for each in (broken, model))
    assert [rollout.completion for rollout in found] == [rollout.completion for rollout in expected]


def test_batches() -> None:
    prompts = [(1, 1), (2,), (1, 1), (3, 3, 3), (2,)]
    assert cut(prompts, 2) == [[1, 4], [0, 2], [3]]
    assert cut(prompts, 9) == [[1, 4, 0, 2, 3]]
    assert cut(prompts, 3, alike=True) == [[1, 4], [0, 2], [3]]
    assert cut([], 3) == []


def test_prompts_that_cannot_be_answered() -> None:
    sampler = PolicySampler(build("GPT-2"), Numbers(), SamplingSettings(100))
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        sampler.sample([(1,), ()])
    with pytest.raises(UserError, match="30 tokens and max_new_tokens=100 go over the model's 128 positions"):
        sampler.sample([(1,) * 30])
    assert sampler.sample([]) == []


@pytest.mark.slow
def test_every_architecture_is_sampled_exactly() -> None:
    """Whatever way the probe chooses: a short look at all of them."""
    settings = SamplingSettings(3)
    for name in {**SHARED, **PADDED}:
        model = build(name)
        rollouts = PolicySampler(model, Numbers(), settings).sample(PROMPTS[:2])
        off = (sampled(rollouts) - scored(model, rollouts)).abs().max()
        assert off < 1e-5, (name, off, causal_lm(model))
