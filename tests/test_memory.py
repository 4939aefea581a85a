"""The memory estimate: parts by hand, the tracer against real tensors, and what changes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.batching.groups import Group, Unit
from alignment.batching.packing import Batch, pack
from alignment.config import RunConfig
from alignment.errors import UserError
from alignment.launch.compose import Composer
from alignment.memory import Estimate, batches, estimate, models, passes
from alignment.memory.advice import advise
from alignment.memory.traced import Live, of_all_layers, trace
from alignment.models.loading import BUILTIN_FOLDER
from alignment.models.logps import token_logps

# tiny: 4 layers of width 192, 4 heads of 48 with 2 for keys, 512 in the middle, 4096 tokens, the head tied.
LAYER = 192 * 192 + 2 * 192 * 96 + 192 * 192 + 3 * 192 * 512 + 2 * 192
WEIGHTS = 4096 * 192 + 4 * LAYER + 192
LORA = 4 * 16 * (2 * (192 + 192) + 2 * (192 + 96) + 3 * (192 + 512))
INV_FREQ = 2 * 4 * 24  # two buffers of the rotary embedding, float32
UNIT = Unit("0", (Group((5,) * 20, ((7,) * 30, (9,) * 40)),))


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer.create()


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations of 1 kB a token of the budget, a tenth of it with checkpointing: tracing takes its time."""

    def assumed(settings: Any, config: RunConfig, units: Any, layout: str) -> int:
        return config.training.token_budget * (100 if config.training.gradient_checkpointing else 1000)

    monkeypatch.setattr(passes, "activations", assumed)


def composed(composer: Composer, *words: str) -> RunConfig:
    fixed = ["model.dtype=float32", "training.bf16=false", "training.batch_size=1", "evaluation.prompts=0"]
    return composer.config(["recipe=dpo", "model=tiny", *fixed, *words])


def taken(config: RunConfig, **how: Any) -> Estimate:
    return estimate(config, units=how.pop("units", [UNIT]), **how)


def test_parts_with_lora(composer: Composer, untraced: None) -> None:
    found = taken(composed(composer))
    assert found.weights == 4 * (WEIGHTS + LORA) + INV_FREQ
    assert (found.gradients, found.optimiser) == (4 * LORA, 8 * LORA)
    assert found.reference == found.others == found.cache == 0  # the base is the reference
    assert found.total == found.training == found.always + found.gradients + found.activations
    assert found.disk == 4 * LORA + 8 * LORA + 4 * LORA  # one checkpoint, and the saved adapter


def test_parts_with_all_weights(composer: Composer, untraced: None) -> None:
    found = taken(composed(composer, "peft=none"))
    assert found.weights == found.reference == 4 * WEIGHTS + INV_FREQ
    assert (found.gradients, found.optimiser) == (4 * WEIGHTS, 8 * WEIGHTS)
    assert taken(composed(composer, "peft=none", "training.optimizer=sgd")).optimiser == 0
    assert taken(composed(composer, "peft=none", "loss=simpo")).reference == 0  # it reads none
    moving = composed(composer, "reference.update_steps=2", "reference.update_rate=0.5")
    assert taken(moving).reference == 4 * WEIGHTS + INV_FREQ


def test_processes_share(composer: Composer, untraced: None) -> None:
    config = composed(composer, "peft=none", "training.batch_size=4")
    one = taken(config)
    ddp, zero2, fsdp = (taken(config, processes=4, strategy=name) for name in ("ddp", "zero2", "fsdp2"))
    assert ddp.weights == one.weights and ddp.gathered == one.gradients == ddp.gradients
    assert (zero2.weights, zero2.gradients, zero2.optimiser) == (one.weights, WEIGHTS, 2 * WEIGHTS)
    assert fsdp.weights == -(-one.weights // 4) and fsdp.reference == one.reference
    assert fsdp.gathered == 4 * (WEIGHTS - 4 * LAYER) + INV_FREQ + 2 * 4 * LAYER
    with pytest.raises(UserError, match="did you mean fsdp2"):
        estimate(config, processes=2, strategy="fsdp")


@pytest.mark.slow
def test_what_makes_activations_smaller(composer: Composer) -> None:
    plain = taken(composed(composer)).activations
    assert plain is not None
    assert 0.6 * plain > taken(composed(composer, "training.gradient_checkpointing=true")).activations
    assert plain < taken(composed(composer, "training.layout=padded")).activations  # the prompt twice
    pair, both = "training.batch_size=2", [UNIT, Unit("1", UNIT.groups)]
    assert taken(composed(composer, pair, "training.token_budget=100"), units=both).activations == plain
    assert taken(composed(composer, pair), units=both).activations > 1.5 * plain


@pytest.mark.slow
def test_the_chunked_head_bounds_the_logits(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = taken(composed(composer)).activations
    monkeypatch.setattr("alignment.models.logps.CHUNK_ELEMENTS", 16 * 4096)  # 16 of 70 rows
    assert taken(composed(composer)).activations < whole - 50 * 4096 * 4


def test_tracing_counts_what_real_tensors_take(composer: Composer) -> None:
    """The same functions on real tensors, counted by the same mode: to the byte."""
    config = composed(composer, "training.gradient_checkpointing=true")
    settings = models.architecture(config.model)
    batch = pack(UNIT.groups)
    step = passes.forward_and_backward(config)
    without_data = trace(models.policy(settings, config), batch, False, step)
    model = models.policy(settings, config).to_empty(device="cpu")
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02)
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    with Live() as live:
        for tensor in (*model.parameters(), *model.buffers(), *vars(batch).values()):
            if torch.is_tensor(tensor):
                live.note(tensor)
        for weight in model.parameters():
            if weight.grad is not None:
                live.note(weight.grad)
        live.now = live.peak = 0
        (real,) = step(model, batch, live)
    assert real == pytest.approx(without_data[0], rel=0.01)


@pytest.mark.slow
def test_two_layers_tell_of_all(composer: Composer) -> None:
    config = composed(composer)
    settings = models.architecture(config.model)

    def kept(model: Any, batch: Batch, live: Live) -> list[int]:
        loss = token_logps(model, batch).sum()
        assert loss.requires_grad
        return [live.now]

    def measure(cut: Any) -> list[int]:
        return trace(models.policy(cut, config), pack(UNIT.groups), False, kept)

    assert of_all_layers(settings, measure) == measure(settings)


def test_keys_and_values(composer: Composer) -> None:
    config = composed(composer)
    config.method, config.loss = "p3o", {"name": "p3o"}
    wanted = batches.Sampling(rows=6, prompt=10, copies=2, new_tokens=130)
    cache, beside = passes.sampling(models.architecture(config.model), config, wanted)
    assert cache == 6 * (10 + 2 * 128) * 4 * 2 * 2 * 48 * 4  # rows, positions, layers, keys and values, heads, float32
    assert 6 * 4096 * 4 <= beside < 20 * 6 * 4096 * 8  # at the least the logits


def test_online_units_are_as_long_as_they_may_be(composer: Composer) -> None:
    config = composer.config(["recipe=p3o", "model=tiny", "rollout.max_new_tokens=17", "rollout.batch_size=4"])
    prompt = Unit("0", (Group((5,) * 20, ((2,),)),))
    (unit,) = batches.sampled(config, [prompt])
    assert [len(answer) for answer in unit.groups[0].completions] == [17, 17]
    first, last = batches.samplings(config, [prompt], processes=1)
    assert (first.rows, first.copies, first.new_tokens) == (4, 2, 17)
    assert (last.rows, last.copies) == (32, 1)
    assert estimate(config, units=[prompt]).cache > 0


@pytest.mark.parametrize("recipe", ["reward", "preference_model", "pit_gap", "kto", "sft", "cut", "ppo", "pit_sft"])
def test_stand_ins_are_no_shorter_than_the_data(recipe: str, composer: Composer) -> None:
    config = composer.config([f"recipe={recipe}", "model=tiny"])
    read = batches.largest(config, batches.units_of(config), "padded", 1, True)
    if batches.is_online(config):
        assert read
        return
    assumed = batches.stand_ins(config)
    assert max(unit.useful_tokens for unit in read) <= assumed[0].useful_tokens + 64  # with templates of their own
    assert len(assumed[0].groups) >= len(read[0].groups)


def test_feedback_has_weights(composer: Composer, tmp_path: Path) -> None:
    config = composer.config(["recipe=p3o", "model=tiny", "feedback=reward_model", "feedback.path=tiny"])
    assert models.others(config) == 4 * (WEIGHTS + 192) + INV_FREQ  # a body, a table of tokens, and a score
    assert models.others(composer.config(["recipe=p3o", "model=tiny"])) == 0


def test_reading_weights_can_be_the_most(composer: Composer, untraced: None) -> None:
    """On a CPU the files are mapped into memory beside the weights; on a GPU they are not its memory."""
    config = composed(composer, "training.gradient_checkpointing=true", "training.token_budget=256")
    stored = sum(file.stat().st_size for file in (BUILTIN_FOLDER / "tiny").glob("*.safetensors"))
    found = taken(config)
    assert found.stored == stored > 0 and found.total == found.loading == found.runtime + found.weights + stored
    assert taken(config, device="cuda").stored == 0


def test_advice_in_order_until_it_fits(composer: Composer, untraced: None) -> None:
    config = composed(composer, "peft=none")
    before = copy.deepcopy(config)
    how: dict[str, Any] = {"units": [UNIT], "device": "cuda"}
    found = estimate(config, **how)
    (first,) = advise(config, found, found.total - 1, **how)
    assert first.override == "peft=lora" and first.saves == found.total - first.then > 4 * 3 * (WEIGHTS - LORA)
    everything = advise(config, found, 0, **how)
    named = [line.override for line in everything if not line.override.startswith("model.")]  # dtype: as the machine is
    assert named == ["peft=lora", "training.gradient_checkpointing=true", "training.token_budget=256"]
    assert found.total - sum(line.saves for line in everything) == everything[-1].then
    assert config == before
