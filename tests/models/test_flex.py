"""FlexAttention's block masks against SDPA's dense ones, on the CPU and uncompiled."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from transformers.integrations import flex_attention as transformers_flex

from alignment.batching.groups import Group
from alignment.batching.packing import pack, shared_mask
from alignment.config import ModelConfig, RunConfig
from alignment.config_check import check_values
from alignment.errors import UserError
from alignment.models import flex
from alignment.models.loading import load_model
from alignment.models.logps import attach, sum_by_completion, token_logps
from tests.batching.architectures import PADDED, SHARED, WINDOW, build, some_groups

TAKEN = {"head_dim": 16}  # the smallest head that the GPU kernel takes
NAMES = ["Llama", "Qwen3", "Mistral, window", "Gemma 3, window in some layers", "OLMo-3, window in some layers"]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Block masks on the CPU, through FlexAttention as it stands, not compiled; returns the calls it gets.

    torch forbids a backward pass there for its compiled kernel has none; the uncompiled one does.
    """
    calls: list[int] = []

    def uncompiled(query: Tensor, key: Tensor, value: Tensor, training: bool = False, **kwargs: Any) -> Any:
        calls.append(query.shape[2])
        return torch_flex.flex_attention(query, key, value, **kwargs)

    monkeypatch.setattr(flex, "DEVICES", ("cpu",))
    monkeypatch.setattr(transformers_flex, "compile_friendly_flex_attention", uncompiled)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *unused: None)
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    return calls


def with_block_masks(name: str) -> Any:
    model = build(name, **TAKEN)
    flex.use_block_masks(model, "flex_attention")
    return attach(model)


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("times", [1, 12])  # 12: rows of several blocks
def test_a_block_mask_is_the_dense_mask(window: int | None, times: int) -> None:
    groups = [Group(g.prompt * times, tuple(c * times for c in g.completions)) for g in some_groups()]
    batch = pack(groups)
    rows, length = batch.input_ids.shape
    found = flex.block_mask(batch, window)
    indices = torch.arange(length)
    dense = found.mask_mod(
        torch.arange(rows)[:, None, None, None], torch.zeros(1, dtype=torch.long), indices[:, None], indices[None, :]
    )
    torch.testing.assert_close(dense, shared_mask(batch, window))
    blocks = found.to_dense()[:, :, : -(-length // 128), : -(-length // 128)].bool()
    seen = shared_mask(batch, window)
    for row in range(rows):  # a block is computed where anything in it is seen, and only there
        for i in range(blocks.shape[2]):
            for j in range(blocks.shape[3]):
                part = seen[row, 0, 128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)]
                assert bool(blocks[row, 0, i, j]) == bool(part.any())
    assert times == 1 or not blocks.all()


@pytest.mark.parametrize("name", NAMES)
def test_log_probs_and_gradients(name: str, on_cpu: list[int]) -> None:
    results = []
    for model in (build(name, **TAKEN), with_block_masks(name)):
        batch = pack(some_groups())
        values = token_logps(model, batch)
        weights = torch.linspace(-1, 1, batch.completions)
        (sum_by_completion(values, batch) * weights).sum().backward()
        results.append((values.detach(), {n: p.grad for n, p in model.named_parameters()}))
        assert len(on_cpu) == (0 if len(results) == 1 else 3)  # every layer of the second model
    (dense, expected), (blocks, found) = results
    torch.testing.assert_close(blocks, dense, atol=1e-5, rtol=0)
    floor = 1e-3 * torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for n in expected:
        assert (found[n] - expected[n]).norm() <= 1e-4 * expected[n].norm().clamp(min=floor)


def test_checkpointing_takes_the_same_way_twice(on_cpu: list[int]) -> None:
    model = with_block_masks("Llama")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    token_logps(model, pack(some_groups())).sum().backward()
    assert len(on_cpu) == 2 * 3
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_under_autocast(on_cpu: list[int]) -> None:
    """Rotated queries and keys are float32 there, values bfloat16: FlexAttention wants them alike."""
    values = []
    for model in (build("Llama", **TAKEN), with_block_masks("Llama")):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            values.append(token_logps(model, pack(some_groups())))
    assert on_cpu
    assert (values[0] - values[1]).abs().mean() < 0.05


def test_short_rows_padded_rows_and_sampling_stay_on_sdpa(on_cpu: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Llama", **TAKEN)
    expected = token_logps(model, pack(some_groups())).detach()
    flex.use_block_masks(model, "auto")
    assert torch.equal(token_logps(model, pack(some_groups())), expected)
    token_logps(model, pack(some_groups(), "padded"))
    model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=3, do_sample=False)
    assert not on_cpu
    monkeypatch.setattr(model, "block_mask_from", pack(some_groups()).input_ids.shape[1])
    twin = copy.deepcopy(model)  # a frozen reference takes what its policy takes
    torch.testing.assert_close(token_logps(twin, pack(some_groups())), expected, atol=1e-5, rtol=0)
    assert on_cpu


def test_off_on_a_cpu() -> None:
    model = with_block_masks("Llama")
    assert not flex.takes_block_mask(model, pack(some_groups()))
    expected = token_logps(build("Llama", **TAKEN), pack(some_groups()))
    assert torch.equal(token_logps(model, pack(some_groups())), expected)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="model.attention=flex_attention needs a CUDA GPU"):
            load_model(ModelConfig(path="tiny", attention="flex_attention"))


@pytest.mark.parametrize(
    "name, settings, reason",
    [
        ("Falcon", {}, "FalconForCausalLM does not support it"),
        ("Gemma 2, window in some layers", {}, "Gemma2ForCausalLM has no SDPA path"),
        ("Llama", {"attention_dropout": 0.1} | TAKEN, "LlamaForCausalLM drops out attention"),
        ("Llama", {}, "attention heads of fewer than 16 entries"),
    ],
)
def test_models_that_cannot(name: str, settings: dict[str, Any], reason: str) -> None:
    model = build(name, **settings)
    before = model.config._attn_implementation
    with pytest.raises(UserError, match=reason):
        flex.use_block_masks(model, "flex_attention")
    flex.use_block_masks(model, "auto")
    assert model.config._attn_implementation == before
    assert not hasattr(model, "block_mask_from")


def test_the_name_of_the_attention_is_not_saved(tmp_path: Any) -> None:
    with_block_masks("Llama").save_pretrained(tmp_path / "saved")
    assert flex.NAME not in (tmp_path / "saved" / "config.json").read_text()
    assert load_model(ModelConfig(path=str(tmp_path / "saved"))).config._attn_implementation == "sdpa"


def test_attention_is_one_of_four() -> None:
    with pytest.raises(UserError, match=r"model.attention=flex: .*flex_attention"):
        check_values(RunConfig(model=ModelConfig(attention="flex")))


@pytest.mark.parametrize("name", SHARED | PADDED)
def test_auto_asks_any_model_without_harm(name: str) -> None:
    model = build(name)
    flex.use_block_masks(model, "auto")
    assert model.config._attn_implementation in ("sdpa", "eager")  # heads of 8 entries: none of these takes block masks
