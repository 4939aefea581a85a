"""A model as one GGUF file, for llama.cpp and what is built on it.

The model of a run that began with a GGUF file is written here: settings and tokenizer are that file's own, and a tensor
that training left alone is its bytes. Other models are handed to llama.cpp's convert_hf_to_gguf.py, where it is found.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors import safe_open

from alignment.errors import UserError, unknown
from alignment.models.loading import config_of_run, smollm2_file

# What may be asked for -> (the tensors' type, the file's, convert_hf_to_gguf.py's name). One row of numbers is float32.
TYPES = {
    "float32": (Type.F32, gguf.LlamaFileType.ALL_F32, "f32"),
    "float16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16, "f16"),
    "bfloat16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16, "bf16"),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0, "q8_0"),
}
ELEMENTS: dict[Type, np.dtype] = {Type.F32: np.dtype(np.float32), Type.F16: np.dtype(np.float16)}
ROTATED = ("llama",)  # whose query and key rows llama.cpp pairs otherwise
AS_THEY_ARE = ("qwen2", "qwen3")
SCRIPT, LLAMA_CPP = "convert_hf_to_gguf.py", "LLAMA_CPP"


def began_with(run: Path) -> Path | None:
    """The GGUF file that the model of the run (or checkpoint) in `run` was trained from; None where it was none."""
    seen: set[Path] = set()
    while run not in seen:
        seen.add(run)
        path = (config_of_run(run).get("model") or {}).get("path")
        if path == "smollm2-135m":
            return smollm2_file()
        if not isinstance(path, str):
            return None
        run = Path(path).expanduser()
        if run.suffix == ".gguf":
            return run if run.is_file() else None
    return None


def write_gguf(folder: Path, out: Path, began: Path | None, dtype: str | None) -> str:
    """Write the plain transformers model in `folder` to the file `out`; returns the type of its numbers.

    Args:
        began: the GGUF file that it was trained from; None: convert_hf_to_gguf.py is looked for.
        dtype: a key of TYPES; None: of `began` each tensor's own type, else float16.

    Raises:
        UserError: an architecture or type that cannot be written here, or no converter.
    """
    if dtype is not None and dtype not in TYPES:
        raise unknown("dtype", dtype, [*TYPES])
    if began is None:
        _convert(folder, out, dtype or "float16")
        return dtype or "float16"
    reader = gguf.GGUFReader(began)
    arch = str(reader.fields["general.architecture"].contents())
    if arch not in (*ROTATED, *AS_THEY_ARE):
        raise UserError(
            f"{began.name} is a {arch}, which is not written here: export to a folder and give that to {SCRIPT}"
        )
    weights = _Weights(folder)
    names = _names(reader, arch, weights)
    kinds = {tensor.name: _type(tensor, dtype) for tensor in reader.tensors}
    heads = _heads(reader, arch)
    writer = gguf.GGUFWriter(out, arch, endianess=reader.endianess)
    _copy_settings(reader, writer, dtype)
    for tensor in reader.tensors:
        shape = tensor.shape[::-1].tolist()  # llama.cpp names the fastest dimension first
        kind = kinds[tensor.name]
        element = ELEMENTS.get(kind, np.dtype(np.uint8))  # of other types numpy sees bytes
        stored = shape if kind in ELEMENTS else gguf.quant_shape_to_byte_shape(shape, kind)
        writer.add_tensor_info(tensor.name, stored, element, int(np.prod(stored)) * element.itemsize, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:  # one at a time in memory
        writer.write_tensor_data(_data(tensor, kinds[tensor.name], names.get(tensor.name), weights, heads))
    writer.close()
    return dtype or "as it was"


class _Weights:
    """The tensors of a folder of safetensors by name, each read when it is wanted."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Path] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                self.files |= dict.fromkeys(opened.keys(), file)

    def read(self, name: str) -> np.ndarray:
        """Float32."""
        with safe_open(self.files[name], "pt") as opened:
            return opened.get_tensor(name).float().numpy()


def _names(reader: Any, arch: str, weights: _Weights) -> dict[str, str]:
    """{name of a tensor in the file: name in transformers}. UserError where the two models are not the same."""
    number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == arch)
    blocks = int(reader.fields[f"{arch}.block_count"].contents())
    known = gguf.get_tensor_name_map(number, blocks)
    found = {known.get_name(name, try_suffixes=(".weight", ".bias")): name for name in weights.files}
    in_file = {tensor.name for tensor in reader.tensors}
    # A head that is the embeddings again stands in neither; what scales the frequencies, in the GGUF file alone.
    both = {key: name for key, name in found.items() if key is not None and key in in_file}
    lost = sorted(set(weights.files) - set(both.values()))
    absent = sorted(in_file - set(both) - {"rope_freqs.weight"})
    if lost or absent:
        raise UserError(
            f"the trained model is not that of the GGUF file it began with: {', '.join([*lost, *absent][:3])} "
            f"is in one of them alone; export to a folder and give that to {SCRIPT}"
        )
    return both


def _type(tensor: Any, dtype: str | None) -> Type:
    if dtype is None:
        return tensor.tensor_type
    wanted = TYPES[dtype][0]
    if len(tensor.shape) == 1:
        return Type.F32
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    return wanted if tensor.shape[0] % block == 0 else Type.F16


def _copy_settings(reader: Any, writer: gguf.GGUFWriter, dtype: str | None) -> None:
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue  # the writer's own
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    before = reader.fields.get("general.file_type")
    if dtype is not None:
        writer.add_file_type(TYPES[dtype][1])
    elif before is not None:
        writer.add_file_type(int(before.contents()))


def _heads(reader: Any, arch: str) -> Callable[[str], int | None]:
    """How many heads the rows of a tensor belong to, where they are paired otherwise; None: they stand as they are."""
    if arch not in ROTATED:
        return lambda name: None
    queries = int(reader.fields[f"{arch}.attention.head_count"].contents())
    shared = reader.fields.get(f"{arch}.attention.head_count_kv")
    keys = int(shared.contents()) if shared is not None else queries
    return lambda name: queries if ".attn_q." in name else keys if ".attn_k." in name else None


def _data(tensor: Any, kind: Type, name: str | None, weights: _Weights, heads: Callable[[str], int | None]) -> Any:
    """The bytes of a tensor: the file's own where training left it alone and its type stays."""
    before = np.ascontiguousarray(tensor.data)
    if name is None:
        return before
    new, count = weights.read(name), heads(tensor.name)
    if count is not None:
        new = paired(new, count)
    shape = tuple(tensor.shape[::-1].tolist())
    if new.shape != shape:
        raise UserError(f"{name} is {new.shape} and was {shape} in the GGUF file: the vocabulary or size was changed")
    if kind == tensor.tensor_type and np.array_equal(gguf.dequantize(tensor.data, kind).reshape(shape), new):
        return before
    try:
        made = gguf.quantize(np.ascontiguousarray(new), kind)
    except NotImplementedError as error:
        raise UserError(
            f"{tensor.name} is {kind.name} in the file that the run began with, which is not written here: "
            "give --dtype q8_0, bfloat16 or float16, and have llama-quantize make it smaller"
        ) from error
    return made


def paired(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows (out, …) of a query or key projection as llama.cpp rotates them: each head's two halves by turns."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _convert(folder: Path, out: Path, dtype: str) -> None:
    script = shutil.which(SCRIPT)
    place = os.environ.get(LLAMA_CPP)
    if place:
        script = str(Path(place).expanduser() / SCRIPT)
    if script is None or not Path(script).is_file():
        looked = f"${LLAMA_CPP}/{SCRIPT}" if place else f"{SCRIPT} is not on the PATH"
        raise UserError(
            f"this run did not begin with a GGUF file, so llama.cpp's converter is needed, and {looked} was not found"
            f"\nMend: set {LLAMA_CPP}=FOLDER_OF_LLAMA_CPP, or export to a folder and convert that elsewhere"
        )
    words = [sys.executable, script, str(folder), "--outfile", str(out), "--outtype", TYPES[dtype][2]]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode or not out.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"{script} failed: {' '.join(said) or f'exit code {done.returncode}'}")
