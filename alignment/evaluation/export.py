"""`align export`: a run's model as one plain transformers folder, its adapter merged into the weights."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from alignment.errors import UserError, unknown
from alignment.evaluation.card import write_model_card
from alignment.evaluation.row import section
from alignment.evaluation.summary import NAME as SUMMARY
from alignment.evaluation.summary import read_config

DTYPES = ("float32", "bfloat16", "float16")
_ADAPTER = "adapter_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def export(run: Path | str, out: Path | str, dtype: str | None = None, trust_remote_code: bool = False) -> Path:
    """Write the model of a run to `out`, loadable with `AutoModelForCausalLM.from_pretrained(out)`; returns `out`.

    An adapter is merged into its base in float32, then cast; a full model is copied, or cast too if `dtype` is given.
    The tokenizer and the model card go with it. The folder is written beside `out` and renamed when whole.

    Args:
        run: a run folder, or a folder that itself holds a model or adapter (a checkpoint).
        out: must not exist, or be empty.
        dtype: float32, bfloat16 or float16; None keeps the one that the run held its weights in (`model.dtype`). Half
            precision rounds away changes smaller than about 0.2 % of a weight, and so a part of a short training.

        trust_remote_code: run the Python that comes with the model.

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
        _write(source, beside, dtype, section(read_config(run), "model"), trust_remote_code)
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


def _write(source: Path, target: Path, dtype: str | None, settings: Mapping[str, Any], trust: bool) -> None:
    """Write the model of `source` with its tokenizer; `settings` are the run's model settings."""
    adapted = (source / _ADAPTER).is_file()
    if not adapted and dtype is None:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*", "*.tmp"))
        return
    import torch

    from alignment.config import ModelConfig
    from alignment.models.loading import adapters_of, base_of_adapter, load_model, make_savable
    from alignment.models.scores import CARD, load_scorer

    config = ModelConfig(path=str(source), trust_remote_code=trust)  # the run may be another's: its own wish is none
    scores = (source / CARD).is_file()
    model: Any = load_scorer(config)[0] if scores else load_model(config)
    kept = str(settings.get("dtype"))
    if scores or kept not in DTYPES:
        kept = "float32"  # the scores of a model in half precision are not those that were trained
    model.to(getattr(torch, dtype or kept))
    if scores:
        shutil.copy(source / CARD, target)
    else:
        make_savable(model)
    model.save_pretrained(target)
    adapters = adapters_of(str(source))
    base = base_of_adapter(Path(adapters[-1])) if adapters else str(source)
    _save_tokenizer(source, base, target, config.trust_remote_code)


def _save_tokenizer(source: Path, base: str, target: Path, trust: bool) -> None:
    from transformers import AutoTokenizer

    kept = any((source / name).is_file() for name in _TOKENIZER_FILES)
    try:
        AutoTokenizer.from_pretrained(str(source) if kept else base, trust_remote_code=trust).save_pretrained(target)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of {source}: {' '.join(str(error).split())[:300]}") from error
