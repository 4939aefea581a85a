"""The log-prob provider against plain log_softmax, and the two layouts against each other."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from alignment.batching.groups import Group
from alignment.batching.packing import pack
from alignment.config import PeftConfig
from alignment.models import logps as provider
from alignment.models.adapters import add_adapter
from alignment.models.layout_check import choose_layout
from alignment.models.logps import attach, sum_by_completion, token_logps, token_logps_and_squares

SMALL = dict(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
SHAPES = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL),
    "mistral-window": MistralConfig(**SMALL, sliding_window=4),
    "gemma3": Gemma3TextConfig(
        **SMALL, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt2": GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64),
}


def model_of(name: str):
    torch.manual_seed(0)
    config = copy.deepcopy(SHAPES[name])
    config._attn_implementation = "sdpa"
    return attach(AutoModelForCausalLM.from_config(config).eval())


def some_groups() -> list[Group]:
    draw = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(97, (length,), generator=draw).tolist())

    return [Group(ids(6), (ids(5), ids(9))), Group(ids(1), (ids(2),)), Group(ids(3), (ids(1), ids(4), ids(7)))]


def each_alone(model, groups: list[Group]) -> torch.Tensor:
    """Log-probs of the completion tokens by the plain model, one unpadded sequence at a time."""
    expected = []
    for group in groups:
        for completion in group.completions:
            sequence = torch.tensor([[*group.prompt, *completion]])
            logps = model(input_ids=sequence).logits.log_softmax(-1)[0, len(group.prompt) - 1 : -1]
            expected.append(logps.gather(-1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(expected)


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_against_plain_log_softmax_of_each_sequence_alone(name: str, layout: str) -> None:
    model, groups = model_of(name), some_groups()
    found = token_logps(model, pack(groups, layout))
    torch.testing.assert_close(found, each_alone(model, groups), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_gradients_agree_between_layouts(name: str) -> None:
    gradients = []
    for layout in ("shared", "padded"):
        model = model_of(name)
        batch = pack(some_groups(), layout)
        weights = torch.linspace(-1, 1, batch.completions)
        (sum_by_completion(token_logps(model, batch), batch) * weights).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert difference < 1e-5


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pack(some_groups())
    results = []
    for elements in (2**24, 97 * 3):
        monkeypatch.setattr(provider, "CHUNK_ELEMENTS", elements)
        model = model_of("llama")
        values = token_logps(model, batch)
        values.square().sum().backward()
        with torch.no_grad():
            again = token_logps(model, batch)
        results.append((values.detach(), again, model.model.embed_tokens.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_log_sum_of_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("llama"), pack([Group((1, 2), ((3, 4, 5), (6,)))], "padded")
    logits = [model(input_ids=torch.tensor([ids])).logits[0, 1:-1] for ids in ([1, 2, 3, 4, 5], [1, 2, 6])]
    expected = torch.cat(logits).softmax(-1).square().sum(-1).log()
    for elements in (2**24, 97 * 2):  # in one chunk, in two
        monkeypatch.setattr(provider, "CHUNK_ELEMENTS", elements)
        logps, squares = token_logps_and_squares(model, batch)
        torch.testing.assert_close(squares, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(logps, token_logps(model, batch))
        assert logps.requires_grad and not squares.requires_grad
        logps.sum().backward()  # through the checkpointed chunks too


def test_temperature_divides_the_logits() -> None:
    model, batch = model_of("llama"), pack([Group((1, 2), ((3, 4),))])
    logits = model(input_ids=torch.tensor([[1, 2, 3, 4]])).logits[0, 1:3] / 0.7
    expected = logits.log_softmax(-1)[[0, 1], [3, 4]]
    torch.testing.assert_close(token_logps(model, batch, temperature=0.7), expected, atol=1e-5, rtol=0)


def test_a_deep_copy_scores_with_its_own_weights() -> None:
    model = model_of("llama")
    batch = pack(some_groups())
    before = token_logps(model, batch).detach()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(token_logps(twin, batch).detach(), before)
    assert not torch.allclose(token_logps(model, batch), before)


def test_lora_scores_through_the_wrapper_and_without_adapter_equals_the_base() -> None:
    batch = pack(some_groups())
    base = token_logps(model_of("llama"), batch).detach()
    policy = attach(add_adapter(model_of("llama"), PeftConfig(r=4)))
    torch.testing.assert_close(token_logps(policy, batch).detach(), base)  # a fresh adapter adds nothing
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    assert not torch.allclose(token_logps(policy, batch), base)
    with policy.disable_adapter():
        torch.testing.assert_close(token_logps(policy, batch).detach(), base)


def test_a_model_that_ignores_the_mask_falls_back_to_padded_rows() -> None:
    model = model_of("llama")
    assert choose_layout(model, "shared") == ("shared", None)

    def deaf(module, args, kwargs):
        if kwargs["attention_mask"] is not None and kwargs["attention_mask"].dim() == 4:
            kwargs["attention_mask"] = None
        return args, kwargs

    model.model.register_forward_pre_hook(deaf, with_kwargs=True)
    layout, note = choose_layout(model, "shared")
    assert layout == "padded" and "LlamaForCausalLM is off by" in note


@pytest.mark.slow
def test_layouts_agree_on_the_embedded_model() -> None:
    """float32, real answers: 99 % of tokens within 1e-5, sums within 5e-6 relative, and both equally near the truth.

    The other tokens differ by float32's own rounding: padded rows are as far from the float64 log-probs as shared ones.
    """
    from alignment.config import DataConfig, ModelConfig, RunConfig
    from alignment.models.loading import load_model, load_tokenizer
    from alignment.trainers.inputs import load_pairs

    config = ModelConfig(path="smollm2-135m")
    run = RunConfig(data=DataConfig(path="everyday", eval_path="everyday", limit=4, eval_limit=4))
    units = load_pairs(None, None, load_tokenizer(config), run).train
    groups = [group for unit in units for group in unit.groups]
    model = attach(load_model(config)).eval()
    with torch.no_grad():
        shared, padded = (pack(groups, layout) for layout in ("shared", "padded"))
        tokens = [token_logps(model, batch) for batch in (shared, padded)]
        sums = [sum_by_completion(values, batch) for values, batch in zip(tokens, (shared, padded), strict=True)]
        model.double()
        truth = each_alone(model, groups)
    difference = (tokens[0] - tokens[1]).abs()
    assert (difference < 1e-5).float().mean() > 0.99 and difference.max() < 5e-5
    assert ((sums[0] - sums[1]) / sums[1]).abs().max() < 5e-6
    distances = [(values - truth).abs().max() for values in tokens]
    assert distances[0] < 2 * distances[1] and distances[1] < 2 * distances[0]
