"""The questions asked of a model at load: which masks it takes, and whether its log-probs are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, ReferenceConfig, RunConfig, TrainingConfig
from alignment.errors import UserError
from alignment.models import logps as provider
from alignment.models.layout_check import choose_layout, layout_deviation
from alignment.models.loading import load_model, load_tokenizer
from alignment.models.logps import attach
from alignment.trainers.dpo import DPOTrainer
from tests.batching.architectures import PADDED, SHARED, build
from tests.batching.test_architectures import WINDOWED, causal, no_window, window_by_rows
from tests.trainers.pairs import some_pairs


@pytest.mark.parametrize("name", SHARED)
def test_taken(name: str) -> None:
    assert choose_layout(build(name), "shared") == ("shared", None)


@pytest.mark.parametrize("std", [0.02, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["Llama", "Gemma 2, window in some layers", "Gemma 3, window in some layers", "GPT-2", "OLMoE"]
)
def test_taken_in_either_precision_and_with_flat_weights(name: str, dtype: torch.dtype, std: float) -> None:
    model = build(name, initializer_range=std).to(dtype)
    assert choose_layout(model, "shared") == ("shared", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eager_attention_where_sdpa_would_do(dtype: torch.dtype) -> None:
    model = build("Mistral, window").to(dtype)
    model.set_attn_implementation("eager")
    assert choose_layout(model, "shared") == ("shared", None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("path", ["tiny", pytest.param("smollm2-135m", marks=pytest.mark.slow)])
def test_the_embedded_models_take_it_in_every_precision(path: str, dtype: str) -> None:
    if (path, dtype) == ("smollm2-135m", "float16"):
        pytest.skip("half a minute: CPUs compute float16 slowly")
    assert choose_layout(attach(load_model(ModelConfig(path=path, dtype=dtype))), "shared") == ("shared", None)


@pytest.mark.parametrize("name", PADDED)
def test_refused(name: str) -> None:
    layout, note = choose_layout(build(name), "shared")
    assert layout == "padded"
    assert note is not None and note.count("\n") == 0 and note.endswith(": using padded rows")


@pytest.mark.parametrize("std", [0.02, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_biases_counted_by_row_are_seen_in_either_precision(dtype: torch.dtype, std: float) -> None:
    model = build("MPT", initializer_range=std).to(dtype)
    layout, note = choose_layout(model, "shared")
    assert layout == "padded" and note is not None and "MptForCausalLM is off by" in note


@pytest.mark.parametrize("wrong", [causal, no_window, window_by_rows])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_wrong_window_is_seen_however_long_it_is(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    text = model.config.get_text_config()
    text.sliding_window = 4096
    assert choose_layout(model, "shared") == ("shared", None)
    assert text.sliding_window == 4096  # put back
    monkeypatch.setattr(provider, "shared_mask", wrong)
    assert choose_layout(model, "shared")[0] == "padded"
    assert text.sliding_window == 4096


def test_a_window_that_the_model_keeps_for_itself_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cuts a window of its own, by row, in addition to the mask it is given."""
    model = build("Mistral")

    def cut(module: Any, args: Any, kwargs: Any) -> Any:
        mask = kwargs["attention_mask"]
        if mask is not None and mask.dim() == 4:
            kwargs["attention_mask"] = mask & ~torch.ones_like(mask).tril(-4)
        return args, kwargs

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(cut, with_kwargs=True)
    assert choose_layout(model, "shared")[0] == "padded"


def test_the_probe_is_scaled_by_what_a_wrong_mask_does() -> None:
    deviation, unheeded = layout_deviation(build("Llama"))
    assert deviation < 1e-5 < 0.1 < unheeded


def test_training_goes_on_in_the_mode_it_was_in() -> None:
    model = build("Llama").train()
    choose_layout(model, "shared")
    assert model.training
    choose_layout(model.eval(), "padded")
    assert not model.training


def test_logits_changed_in_an_unknown_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("Granite")
    monkeypatch.setattr(provider, "adjust_logits", lambda config, logits: logits)
    for wanted in ("shared", "padded"):
        with pytest.raises(UserError, match=r"GraniteForCausalLM changes its logits .* off by"):
            choose_layout(model, wanted)


def test_a_model_without_a_body_is_refused() -> None:
    model = build("Llama")
    model.model.forward = lambda **unused: object()  # no last_hidden_state in it
    with pytest.raises(UserError, match="LlamaForCausalLM is not built like a causal language model"):
        choose_layout(model, "shared")


@pytest.mark.parametrize("name", ["BLOOM", "Mamba", "Qwen3-Next"])
def test_a_step_on_the_fallback(name: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    model = build(name, vocab_size=len(tokenizer))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    config = RunConfig(
        peft=PeftConfig(method="none"),
        training=TrainingConfig(max_steps=1, batch_size=4, learning_rate=1e-2, bf16=False, warmup_ratio=0.0),
        evaluation=EvaluationConfig(prompts=0),
    )
    pairs = some_pairs(4)
    trainer = DPOTrainer(model, config, train=pairs, eval=pairs, tokenizer=tokenizer, folder=tmp_path)
    assert trainer.layout == "padded" and "using padded rows" in (trainer.layout_note or "")
    start = trainer.evaluate()["eval_loss"]
    assert start == pytest.approx(0.6931, abs=1e-4)  # log 2: the policy is its reference
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < start - 1e-3
    assert any(not torch.equal(before[n], p.detach()) for n, p in trainer.model.named_parameters())


def test_a_reference_that_takes_no_mask_takes_the_policy_along(tmp_path: Path) -> None:
    """Both score the same batches: MPT would take the shared rows without a word and be wrong."""
    tokenizer = load_tokenizer(ModelConfig(path="tiny"))
    build("MPT", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "mpt")
    config = RunConfig(
        peft=PeftConfig(method="none"),
        reference=ReferenceConfig(path=str(tmp_path / "mpt")),
        training=TrainingConfig(max_steps=1, batch_size=4, bf16=False),
    )
    pairs = some_pairs(4)
    trainer = DPOTrainer("tiny", config, train=pairs, eval=pairs, folder=tmp_path / "run")
    assert trainer.layout == "padded" and "MptForCausalLM" in (trainer.layout_note or "")
    trainer.train()


def test_loading_leaves_the_choice_of_attention_to_the_model(tmp_path: Path) -> None:
    build("BLOOM").save_pretrained(tmp_path / "bloom")  # no SDPA path in transformers
    path = str(tmp_path / "bloom")
    assert load_model(ModelConfig(path=path)).config._attn_implementation == "eager"
    with pytest.raises(UserError, match="scaled_dot_product_attention"):
        load_model(ModelConfig(path=path, attention="sdpa"))
    assert load_model(ModelConfig(path="tiny")).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["Gemma 2, window in some layers", "Cohere", "Granite", "Falcon-H1", "RecurrentGemma"])
def test_caps_and_scales_behind_the_head_are_known(name: str) -> None:
    assert choose_layout(build(name), "padded") == ("padded", None)  # else it raises
