"""The gradient of a step against the truth: each sequence alone through the plain model, averaged by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from alignment.config import ModelConfig, PeftConfig
from alignment.data.templates import encode_pair
from alignment.models.adapters import add_adapter
from alignment.models.loading import load_model, load_tokenizer
from tests.launching import launch
from tests.trainers.one_step import one_step
from tests.trainers.pairs import some_pairs

TINY = ModelConfig(path="tiny", dtype="float32")


def truth(before: dict[str, torch.Tensor], peft: str) -> dict[str, torch.Tensor]:
    """d/dw of the mean over pairs of -log sigma(0.1 * h), with `before` as the policy's trained weights."""
    tokenizer = load_tokenizer(TINY)
    policy = add_adapter(load_model(TINY), PeftConfig(method=peft, r=4)).eval()
    reference = load_model(TINY).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name in before:
                parameter.copy_(before[name])

    def logp(model, prompt, completion):
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).sum()

    losses = []
    for pair in some_pairs():
        prompt, chosen = encode_pair(tokenizer, pair.prompt, pair.chosen)
        _, rejected = encode_pair(tokenizer, pair.prompt, pair.rejected)
        h = logp(policy, prompt, chosen) - logp(policy, prompt, rejected)
        with torch.no_grad():
            h_reference = logp(reference, prompt, chosen) - logp(reference, prompt, rejected)
        losses.append(-F.logsigmoid(0.1 * (h - h_reference)))
    torch.stack(losses).mean().backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}


def deviation(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative distance of two gradients as one long vector."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (difference / sum(float(value.square().sum()) for value in expected.values())) ** 0.5


@pytest.mark.parametrize("peft", ["none", "lora"])
@pytest.mark.parametrize("budget, layout", [(100_000, "shared"), (60, "shared"), (150, "padded")])
def test_one_process(peft: str, budget: int, layout: str, tmp_path: Path) -> None:
    result = one_step(tmp_path, peft, budget, layout)
    assert deviation(result["gradient"], truth(result["before"], peft)) < 1e-5


@pytest.mark.parametrize("peft", [pytest.param("none", marks=pytest.mark.slow), "lora"])
def test_two_processes(peft: str, tmp_path: Path) -> None:
    # A small budget gives the ranks different numbers of micro-batches, so no_sync and the fillers are in it, too.
    done = launch(["-m", "tests.trainers.one_step", str(tmp_path), peft, "100", "shared"], processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    saved = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert deviation(saved["gradient"], truth(saved["before"], peft)) < 1e-5
    alone = one_step(tmp_path / "alone", peft, 4096)
    assert saved["metrics"] == pytest.approx(alone["metrics"], rel=1e-4, abs=1e-5)
