"""The vLLM sampler against a client that answers as TRL's does; no server runs here."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from alignment.errors import UserError
from alignment.rollouts.sampler import Rollout
from alignment.rollouts.sampling import SamplingSettings
from alignment.rollouts.served import ServedSampler, connect, plain_weights
from tests.batching.architectures import build
from tests.rollouts.policies import END, PROMPTS, Numbers
from tests.rollouts.test_mixture import far


class Client:
    """Answers the prompt's length, the number of the copy, and an end token to even copies."""

    def __init__(self, logprobs: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self.pushed: dict[str, torch.Tensor] = {}
        self.calls: list[str] = []
        self.logprobs = logprobs

    def generate(self, prompts: list[list[int]], **options: Any) -> dict[str, Any]:
        self.asked.append({"prompts": prompts, **options})
        ids = [[20 + len(prompts[0]), 40 + copy] + [END] * (copy % 2 == 0) for copy in range(options["n"])]
        logps = [[[-0.5 * (t + 1)] for t in range(len(row))] for row in ids] if self.logprobs else None
        return {"prompt_ids": prompts, "completion_ids": ids, "logprobs": logps}

    def update_named_params(self, metadata: Any, named_params: Any) -> None:
        self.calls.append("update")
        self.pushed = dict(named_params)
        described = [(name, str(each.dtype)[6:], list(each.shape)) for name, each in self.pushed.items()]
        assert metadata == described

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset")


def test_rollouts_of_a_server() -> None:
    client = Client()
    settings = SamplingSettings(max_new_tokens=3, temperature=0.5, top_k=7, top_p=0.9)
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    rollouts = ServedSampler(build("Llama"), Numbers(), settings, client).sample(prompts, k=2, seed=1)
    assert rollouts[:2] == [
        Rollout(PROMPTS[0], (21, 40, END), (-0.5, -1.0, -1.5), True, "21 40"),
        Rollout(PROMPTS[0], (21, 41), (-0.5, -1.0), False, "21 41"),
    ]
    assert [rollout.prompt for rollout in rollouts] == [prompt for prompt in prompts for _ in range(2)]
    for asked in client.asked:
        assert (asked["n"], asked["temperature"], asked["top_k"], asked["top_p"]) == (2, 0.5, 7, 0.9)
        assert (asked["max_tokens"], asked["logprobs"]) == (3, 0)
        assert asked["generation_kwargs"]["stop_token_ids"] == [END]
    seeds = [asked["generation_kwargs"]["seed"] for asked in client.asked]
    assert len(set(seeds)) == 3  # the prompt that comes again is answered anew
    again = Client()
    ServedSampler(build("Llama"), Numbers(), settings, again).sample(prompts, k=2, seed=1)
    assert sorted(asked["generation_kwargs"]["seed"] for asked in again.asked) == sorted(seeds)


def test_a_server_without_log_probs_is_refused() -> None:
    with pytest.raises(UserError, match="--logprobs-mode processed_logprobs"):
        ServedSampler(build("Llama"), Numbers(), SamplingSettings(), Client(logprobs=False)).sample(PROMPTS)


def test_the_weights_pushed_are_those_of_the_plain_model() -> None:
    policy, client = far(), Client()
    ServedSampler(policy, Numbers(), SamplingSettings(), client).update(policy)
    assert client.calls == ["update", "reset"]
    merged = dict(far().merge_and_unload().named_parameters())
    assert client.pushed.keys() == merged.keys() == dict(build("Llama").named_parameters()).keys()
    for name, value in client.pushed.items():
        torch.testing.assert_close(value, merged[name], atol=1e-6, rtol=0)
    assert not torch.equal(
        client.pushed["model.layers.0.mlp.up_proj.weight"], build("Llama").model.layers[0].mlp.up_proj.weight
    )
    plain = build("Llama")
    assert [name for name, _ in plain_weights(plain)] == [name for name, _ in plain.named_parameters()]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_trl(name: str, *args: Any) -> Any:
        if name.startswith("trl"):
            raise ImportError("No module named 'trl'")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_trl)
    with pytest.raises(UserError, match=r"No module named 'trl'\nMend: pip install 'trl\[vllm\]'"):
        connect("http://localhost:1", "cuda:0")


def test_vllm_is_asked_for_by_trl() -> None:
    pytest.importorskip("trl")
    with pytest.raises(UserError, match="Mend: pip install"):
        connect("http://localhost:1", "cuda:0")
