from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from alignment.errors import UserError
from alignment.evaluation.export import export

from .fake_run import make_run

IDS = torch.tensor([[1, 2, 3, 4, 5]])


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"<pad>": 0, "hello": 1, "<unk>": 2}, unk_token="<unk>"))
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>")
    made.chat_template = "{{ messages[0]['content'] }}"
    return made


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A random Llama of two layers, saved with its tokenizer."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    model = LlamaForCausalLM(
        LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True)
    )
    model.save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapted(base: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """(a run folder whose model/ is a LoRA adapter, the logits of the adapted model)"""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first: the adapter would do nothing
            torch.nn.init.normal_(weight, std=0.2)
    run = make_run(tmp_path / "run", steps=1)
    model.save_pretrained(str(run / "model"))
    tokenizer().save_pretrained(run / "model")
    return run, logits(model.eval())


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def test_the_merged_model_computes_what_the_adapted_one_did(
    adapted: tuple[Path, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    run, expected = adapted
    out = export(run, tmp_path / "exports" / "merged")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.allclose(logits(model), expected, atol=1e-5)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(base)), expected, atol=1e-2)
    assert model.dtype == torch.float32
    assert not hasattr(model, "peft_config")
    assert AutoTokenizer.from_pretrained(out).chat_template == tokenizer().chat_template
    card = (out / "README.md").read_text()
    assert "library_name: transformers" in card
    assert [path.name for path in out.parent.iterdir()] == ["merged"]  # nothing half-written is left
    assert {oct(path.stat().st_mode & 0o777) for path in out.iterdir()} == {oct(0o666 & ~umask())}


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_dtype_is_applied_and_written_into_the_configuration(
    adapted: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    run, expected = adapted
    out = export(run, tmp_path / "half", dtype="bfloat16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert torch.allclose(logits(model), expected, atol=0.05)


def test_a_full_model_is_copied_and_an_empty_folder_taken(base: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=1)
    (run / "model").rmdir()
    base.rename(run / "model")
    (tmp_path / "out").mkdir()
    out = export(run, tmp_path / "out")
    expected = logits(AutoModelForCausalLM.from_pretrained(run / "model"))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(out)), expected)
    assert AutoTokenizer.from_pretrained(out).chat_template == tokenizer().chat_template
    half = export(run / "model", tmp_path / "half", dtype="float16")  # a model folder itself will do
    assert AutoModelForCausalLM.from_pretrained(half).dtype == torch.float16
    assert AutoTokenizer.from_pretrained(half).pad_token == "<pad>"


def test_contradictory_generation_settings_do_not_stop_it(
    adapted: tuple[Path, torch.Tensor], base: Path, tmp_path: Path
) -> None:
    settings = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**settings, "temperature": 0.2}))
    out = export(adapted[0], tmp_path / "out")
    assert json.loads((out / "generation_config.json").read_text())["do_sample"] is True


def test_a_base_that_has_moved_is_found_through_the_run(adapted: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    run, expected = adapted
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"path": str(tmp_path / "elsewhere")}}))
    out = export(run, tmp_path / "out")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(out)), expected, atol=1e-5)


def test_a_taken_place_is_refused(adapted: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    for place in (tmp_path / "taken", tmp_path / "taken" / "file"):
        with pytest.raises(UserError, match="not an empty folder"):
            export(adapted[0], place)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]


def test_bad_input_is_named_and_leaves_nothing(adapted: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    run, _ = adapted
    out = tmp_path / "place" / "out"
    with pytest.raises(UserError, match="unknown dtype 'bfloat61': did you mean bfloat16"):
        export(run, out, dtype="bfloat61")
    with pytest.raises(UserError, match="no run folder"):
        export(tmp_path / "missing", out)
    with pytest.raises(UserError, match=r"no model in .*place"):
        (tmp_path / "place").mkdir()
        export(tmp_path / "place", out)
    note = run / "model" / "adapter_config.json"
    (run / "config.yaml").write_text("model: {path: null}")
    kept = json.loads(note.read_text())
    for changed, words in (
        ({"base_model_name_or_path": None}, "does not name its base model"),
        ({"base_model_name_or_path": str(tmp_path / "gone" / "base")}, "no such folder"),
    ):
        note.write_text(json.dumps({**kept, **changed}))
        with pytest.raises(UserError, match=words):
            export(run, out)
    note.write_text("{")
    with pytest.raises(UserError, match="not a valid JSON object"):
        export(run, out)
    assert list((tmp_path / "place").iterdir()) == []


def test_an_adapter_of_another_base_is_refused(adapted: tuple[Path, torch.Tensor], base: Path, tmp_path: Path) -> None:
    other = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2)
    LlamaForCausalLM(other).save_pretrained(base)
    with pytest.raises(UserError, match="does not fit"):
        export(adapted[0], tmp_path / "out")


def test_a_failed_write_leaves_nothing(
    adapted: tuple[Path, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(UserError, match="No space left"):
        export(adapted[0], tmp_path / "place" / "out")
    assert list((tmp_path / "place").iterdir()) == []
