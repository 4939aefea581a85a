"""`align export`: a run's model as one plain transformers folder, its adapter merged into the weights."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from alignment.errors import UserError, unknown
from alignment.evaluation.card import write_model_card
from alignment.evaluation.summary import NAME as SUMMARY
from alignment.evaluation.summary import read_config
from alignment.evaluation.table import section

DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER = "adapter_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def export(run: Path | str, out: Path | str, dtype: str | None = None) -> Path:
    """Write the model of a run to `out`, loadable with `AutoModelForCausalLM.from_pretrained(out)`; returns `out`.

    An adapter is merged into its base in float32, then cast; a full model is copied, or cast too if `dtype` is given.
    The tokenizer and the model card go with it. The folder is written beside `out` and renamed when whole.

    Args:
        run: a run folder, or a folder that itself holds a model or adapter (a checkpoint).
        out: must not exist, or be empty.
        dtype: float32, bfloat16 or float16; None keeps the one that the run held its weights in (`model.dtype`). Half
            precision rounds away changes smaller than about 0.2 % of a weight, and so a part of a short training.

    Raises:
        UserError: no model in `run`, `out` is taken, the base model cannot be found, or the disk is full.
    """
    out, run = Path(os.path.abspath(Path(out).expanduser())), Path(run).expanduser()
    source = _model_folder(run)
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    _refuse_taken(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
        beside.mkdir()
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror or error}") from error
    try:
        _write(source, beside, dtype, section(read_config(run), "model"))
        if (run / SUMMARY).is_file():
            write_model_card(run, beside)
        for weights in beside.glob("*.safetensors"):  # saved readable by their owner alone; a folder to hand on is not
            shutil.copymode(beside / "config.json", weights)
        _refuse_taken(out)
        if out.is_dir():
            out.rmdir()
        beside.rename(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot write {out}: {reason}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return out


def _refuse_taken(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise UserError(f"{out} exists and is not an empty folder; choose another name or remove it")


def _model_folder(run: Path) -> Path:
    """The folder with the weights: `run`/model, or `run` itself."""
    if not run.is_dir():
        raise UserError(f"no run folder {run}")
    for folder in (run / "model", run):
        if (folder / _ADAPTER).is_file() or (folder / "config.json").is_file():
            return folder
    raise UserError(f"no model in {run}: neither model/ nor the folder itself holds {_ADAPTER} or config.json")


def _write(source: Path, target: Path, dtype: str | None, settings: Mapping[str, Any]) -> None:
    """Write the model of `source` with its tokenizer; `settings` are the run's model settings."""
    adapted = (source / _ADAPTER).is_file()
    if not adapted and dtype is None:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*", "*.tmp"))
        return
    import torch

    from alignment.models.loading import make_savable

    trust = bool(settings.get("trust_remote_code", False))
    base = _base_of(source, settings.get("path")) if adapted else str(source)
    model = _merged(source, base, trust) if adapted else _load(base, trust)
    kept = str(settings.get("dtype"))
    model.to(getattr(torch, dtype or (kept if kept in DTYPES else "float32")))
    make_savable(model)
    model.save_pretrained(target)
    _save_tokenizer(source, base, target, trust)


def _base_of(source: Path, trained_from: Any) -> str:
    """What to load as the adapter's base: its own note, read as model.path is.

    The note is often a folder of the machine that trained. Where that is gone, `trained_from` (the run's own
    model.path: a built-in's name, a hub id) is tried instead.
    """
    from alignment.models.loading import resolve

    try:
        noted = json.loads((source / _ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{source / _ADAPTER} is not a valid JSON object: {error}") from error
    if not noted and not trained_from:
        raise UserError(f"{source / _ADAPTER} does not name its base model (base_model_name_or_path)")
    try:
        return resolve(str(noted or trained_from))
    except UserError:
        if not trained_from or trained_from == noted:
            raise
    return resolve(str(trained_from))


def _load(path: str, trust: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=trust)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot load the model {path}: {' '.join(str(error).split())[:300]}") from error


def _merged(source: Path, base: str, trust: bool) -> Any:
    """The base with the adapter added to its weights, in float32."""
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(_load(base, trust), str(source))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"the adapter in {source} does not fit {base}: {' '.join(str(error).split())[:300]}") from error
    return adapted.merge_and_unload()


def _save_tokenizer(source: Path, base: str, target: Path, trust: bool) -> None:
    from transformers import AutoTokenizer

    kept = any((source / name).is_file() for name in _TOKENIZER_FILES)
    try:
        AutoTokenizer.from_pretrained(str(source) if kept else base, trust_remote_code=trust).save_pretrained(target)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of {source}: {' '.join(str(error).split())[:300]}") from error
