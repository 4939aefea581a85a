"""The mixture: its ends are the two policies, what lies between is exact, under LoRA and of two models."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from alignment.config import PeftConfig
from alignment.errors import UserError
from alignment.models.adapters import add_adapter
from alignment.models.logps import causal_lm
from alignment.models.reference import AdapterOff, FrozenCopy
from alignment.rollouts.decode import AdapterAndBase, TwoPolicies
from alignment.rollouts.sampler import MixtureSampler, PolicySampler
from alignment.rollouts.sampling import SamplingSettings
from tests.batching.architectures import build
from tests.rollouts.policies import END, PROMPTS, Numbers, next_logits, sampled

SETTINGS = SamplingSettings(max_new_tokens=10)
KINDS = ["one batch", "adapter switched off and on", "two models"]


def far(name: str = "Llama", **lora: Any) -> Any:
    """A policy with LoRA that has been moved far from its base."""
    torch.manual_seed(1)
    policy = add_adapter(build(name), PeftConfig(r=4, **lora)).eval()
    with torch.no_grad():
        for parameter_name, parameter in sorted(policy.named_parameters()):
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.5)
    return policy


def pair(kind: str, monkeypatch: pytest.MonkeyPatch, name: str = "Llama") -> tuple[Any, Any, Any]:
    """(policy, what the sampler takes as reference, the reference as a plain model)."""
    policy = far(name)
    if kind == "adapter switched off and on":
        monkeypatch.setattr("alignment.rollouts.sampler.takes_adapter_names", lambda policy: False)
    if kind == "two models":
        return policy.merge_and_unload(), FrozenCopy(build(name)), build(name)
    return policy, AdapterOff(policy), build(name)


def mixture(policy: Any, base: Any, ids: tuple[int, ...], last: int, beta: float, temperature: float = 1.0) -> Tensor:
    """Log-probs (last, V) of the tokens that follow the last ids, without a cache."""
    own, other = (next_logits(model, ids, last) / temperature for model in (policy, base))
    return ((1 - beta) * own.log_softmax(-1) + beta * other.log_softmax(-1)).log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_its_ends_are_the_two_policies(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, reference, base = pair(kind, monkeypatch)
    plain = PolicySampler(policy, Numbers(), SETTINGS).sample(PROMPTS, k=4, seed=2)
    of_reference = PolicySampler(base, Numbers(), SETTINGS).sample(PROMPTS, k=4, seed=2)
    assert plain != of_reference
    for beta, expected in ((0.0, plain), (1.0, of_reference)):
        found = MixtureSampler(policy, reference, Numbers(), SETTINGS, beta).sample(PROMPTS, k=4, seed=2)
        assert [rollout.completion for rollout in found] == [rollout.completion for rollout in expected]
        torch.testing.assert_close(sampled(found), sampled(expected), atol=1e-5, rtol=0)
    # Both models run where beta is next to an end, and the tokens are still the same.
    for beta, expected in ((1e-7, plain), (1 - 1e-7, of_reference)):
        found = MixtureSampler(policy, reference, Numbers(), SETTINGS, beta).sample(PROMPTS, k=4, seed=2)
        assert [rollout.completion for rollout in found] == [rollout.completion for rollout in expected]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Llama", "Gemma 3, window in some layers"])
def test_log_probs_between_the_ends(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token of every rollout against the mixture without caches; rows finish, and are dropped, on the way."""
    policy, reference, base = pair(kind, monkeypatch, name)
    causal_lm(policy).generation_config.eos_token_id = [END, *range(40, 60)]
    settings = SamplingSettings(max_new_tokens=10, temperature=1.3)
    sampler = MixtureSampler(policy, reference, Numbers(), settings, beta=0.375)
    rollouts = sampler.sample(PROMPTS, k=4, seed=1)
    assert len({len(rollout.completion) for rollout in rollouts}) > 3
    for rollout in rollouts:
        ids, count = (*rollout.prompt, *rollout.completion[:-1]), len(rollout.completion)
        expected = mixture(policy, base, ids, count, 0.375, 1.3)[range(count), rollout.completion]
        torch.testing.assert_close(torch.tensor(rollout.logps), expected, atol=2e-5, rtol=0)


def test_which_way_is_taken() -> None:
    policy = far()
    sampler = MixtureSampler(policy, AdapterOff(policy), Numbers(), SETTINGS, 0.5)
    assert isinstance(sampler.rows(policy), AdapterAndBase)
    policy.add_adapter("second", policy.peft_config["default"])
    policy.base_model.set_adapter(["default", "second"])
    assert isinstance(sampler.rows(policy), TwoPolicies)  # two adapters at once cannot be named for a row


def test_merged_adapters_are_not_named_for_a_row() -> None:
    policy = far()
    expected = MixtureSampler(policy, AdapterOff(policy), Numbers(), SETTINGS, 0.5).sample(PROMPTS)
    policy.merge_adapter()
    found = MixtureSampler(policy, AdapterOff(policy), Numbers(), SETTINGS, 0.5).sample(PROMPTS)
    assert [rollout.completion for rollout in found] == [rollout.completion for rollout in expected]


def test_first_tokens_are_distributed_as_the_mixture() -> None:
    policy = far()
    sampler = MixtureSampler(policy, AdapterOff(policy), Numbers(), SamplingSettings(1, batch_size=3000), 0.25)
    rollouts = sampler.sample([PROMPTS[1]], k=3000, seed=0)
    counts = torch.tensor([rollout.completion[0] for rollout in rollouts]).bincount(minlength=199)

    def p_value(shares: Tensor) -> float:
        expected = 3000 * shares.double()
        common = expected >= 5
        lumped = [torch.cat([each[common].double(), each[~common].sum()[None].double()]) for each in (counts, expected)]
        return float(chisquare(lumped[0].numpy(), (lumped[1] * (3000 / lumped[1].sum())).numpy()).pvalue)

    base = build("Llama")
    assert p_value(mixture(policy, base, PROMPTS[1], 1, 0.25)[0].exp()) > 0.01
    for wrong in (0.0, 0.125, 0.5):
        assert p_value(mixture(policy, base, PROMPTS[1], 1, wrong)[0].exp()) < 1e-4


def test_the_policy_trains_on_unchanged_after_sampling() -> None:
    policy = far().train()
    weights = copy.deepcopy(policy.state_dict())
    MixtureSampler(policy, AdapterOff(policy), Numbers(), SETTINGS, 0.5).sample(PROMPTS)
    assert policy.training and policy.active_adapters == ["default"]
    for name, value in policy.state_dict().items():
        assert torch.equal(value, weights[name])
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)


def test_what_cannot_be_mixed_is_refused() -> None:
    policy = build("Llama")
    with pytest.raises(UserError, match="beta is 1.5"):
        MixtureSampler(policy, FrozenCopy(build("Llama")), Numbers(), SETTINGS, 1.5)
    with pytest.raises(UserError, match="vocabulary has 199 tokens, the reference's 64"):
        MixtureSampler(policy, FrozenCopy(build("Llama", vocab_size=64)), Numbers(), SETTINGS, 0.5)
    with pytest.raises(UserError, match="MambaForCausalLM cannot be sampled in a mixture"):
        MixtureSampler(policy, FrozenCopy(build("Mamba")), Numbers(), SETTINGS, 0.5).sample(PROMPTS)
