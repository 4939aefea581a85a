"""A run's model as a GGUF file: the bytes that training left alone, and the numbers that it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.errors import UserError
from alignment.evaluation import export_check, gguf_file
from alignment.evaluation.export import export
from alignment.models.loading import from_gguf, resolve

SIZES = {"vocab_size": 48, "embedding_length": 64, "block_count": 2, "feed_forward_length": 96, "context_length": 64}


@pytest.fixture
def began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small Llama in Q8_0 as a GGUF file, two query heads for each key head; its conversions lie in tmp_path."""
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    for name, value in SIZES.items():
        writer.add_key_value(f"llama.{name}", value, gguf.GGUFValueType.UINT32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(16)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<unk>", "<end>", *(chr(ord("a") + at) for at in range(26)), *map(str, range(19)), "ab"])
    writer.add_token_types([3, 3] + [1] * 46)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(0)
    draw = np.random.default_rng(0)
    blocks = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
    blocks |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    tensors = {
        "token_embd": (48, 64),
        **{f"blk.{at}.{name}": shape for at in range(2) for name, shape in blocks.items()},
    }
    for name, shape in tensors.items():
        packed = gguf.quantize(draw.normal(0, 0.3, shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", *(f"blk.{at}.{kind}_norm" for at in range(2) for kind in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", draw.uniform(0.5, 1.5, 64).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "small.gguf"


def trained(began: Path, run: Path, targets: list[str], std: float = 0.1) -> Path:
    """A run whose adapter on the file's model changes `targets`."""
    base = from_gguf(began)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=std)
    model.save_pretrained(str(run / "model"))
    AutoTokenizer.from_pretrained(base).save_pretrained(run / "model")
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"path": str(began), "dtype": "float32"}}))
    return run


def tensors(file: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


def test_a_model_that_was_not_changed_is_the_file_it_began_with(began: Path, tmp_path: Path) -> None:
    run = trained(began, tmp_path / "run", ["q_proj", "k_proj"], std=0.0)
    out = export(run, tmp_path / "same.gguf")
    before, after = tensors(began), tensors(out)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name].data, after[name].data) for name in before)
    assert all(before[name].tensor_type == after[name].tensor_type for name in before)
    old, new = gguf.GGUFReader(began).fields, gguf.GGUFReader(out).fields
    assert {name: field.contents() for name, field in old.items()} == {
        name: field.contents() for name, field in new.items()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "run", "same.gguf", "small.gguf"]


@pytest.mark.parametrize("dtype", [None, *gguf_file.TYPES])
def test_what_was_trained_is_read_again(began: Path, tmp_path: Path, dtype: str | None) -> None:
    run, lines = trained(began, tmp_path / "run", ["q_proj", "k_proj", "down_proj"]), []
    out = export(run, tmp_path / "model.gguf", dtype, say=lines.append)
    assert len(lines) == 2 and lines[0].startswith("merged model against base and adapter, 5 answers of random tokens")
    assert lines[1].startswith("GGUF, ")
    plain = AutoModelForCausalLM.from_pretrained(export(run, tmp_path / "plain"), dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=out.name, dtype=torch.float32)
    step = {None: 0.02, "float32": 0, "float16": 1e-3, "bfloat16": 8e-3, "q8_0": 0.02}[dtype]
    for name, weight in plain.state_dict().items():
        assert (again.state_dict()[name] - weight).abs().max() <= step * weight.abs().max(), name
    found, before = tensors(out), tensors(began)
    changed = {name for name in found if ".attn_q." in name or ".attn_k." in name or ".ffn_down." in name}
    if dtype in (None, "q8_0"):
        same = {name for name in found if np.array_equal(found[name].data, before[name].data)}
        assert same == set(found) - changed
    assert found["output_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert found["blk.0.attn_q.weight"].tensor_type == gguf_file.TYPES[dtype or "q8_0"][0]


def test_a_wrong_file_is_noticed_and_not_kept(began: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(began, tmp_path / "run", ["q_proj", "k_proj"])
    monkeypatch.setattr(gguf_file, "paired", lambda rows, heads: rows)
    with pytest.raises(UserError, match="what was written is not the model that was trained: GGUF"):
        export(run, tmp_path / "out" / "model.gguf", dtype="float32")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_distance_is_that_of_the_worst_answer() -> None:
    expected = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])]
    found = [torch.tensor([-1.0, -2.5]), torch.tensor([-3.1])]
    distance = export_check.compare(expected, found, "answers")
    assert (distance.mean, distance.largest, distance.answers) == (pytest.approx(0.25), pytest.approx(0.5), 2)
    assert "allowed: 0.3" in export_check.refuse_other(expected, found, "answers", 0.3)
    for bad in (found, [torch.tensor([-1.0, float("nan")]), torch.tensor([-3.0])]):
        with pytest.raises(UserError, match="not the model that was trained"):
            export_check.refuse_other(expected, bad, "answers", 0.2)


def test_what_cannot_be_written_is_one_line(began: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(began, tmp_path / "run", ["q_proj"])
    with pytest.raises(UserError, match="unknown dtype 'q4_0': did you mean q8_0"):
        export(run, tmp_path / "model.gguf", dtype="q4_0")
    with pytest.raises(UserError, match="unknown dtype 'q8_0'"):
        export(run, tmp_path / "folder", dtype="q8_0")
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "")
    began.unlink()
    with pytest.raises(UserError, match=r"did not begin with a GGUF file.*not on the PATH.*\nMend: set LLAMA_CPP="):
        gguf_file.write_gguf(Path(resolve("tiny")), tmp_path / "x.gguf", gguf_file.began_with(run), None)


def test_another_model_is_given_to_the_converter_of_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / gguf_file.SCRIPT
    script.write_text("import pathlib, sys\npathlib.Path(sys.argv[3]).write_text(' '.join(sys.argv[1:]))\n")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    out = tmp_path / "model.gguf"
    assert gguf_file.write_gguf(tmp_path / "folder", out, None, "q8_0") == "q8_0"
    assert out.read_text() == f"{tmp_path / 'folder'} --outfile {out} --outtype q8_0"
    script.write_text("import sys\nsys.exit('no such architecture')\n")
    out.unlink()
    with pytest.raises(UserError, match="failed: no such architecture"):
        gguf_file.write_gguf(tmp_path / "folder", out, None, None)


def test_the_file_is_found_through_runs_on_runs(began: Path, tmp_path: Path) -> None:
    first = trained(began, tmp_path / "first", ["q_proj"])
    second = tmp_path / "second"
    second.mkdir()
    (second / "config.yaml").write_text(yaml.safe_dump({"model": {"path": str(first)}}))
    assert gguf_file.began_with(second) == began
    (first / "config.yaml").write_text(yaml.safe_dump({"model": {"path": str(second)}}))
    assert gguf_file.began_with(second) is None  # a circle
