"""`align export`: a run's model as one plain transformers folder, its adapter merged into the weights."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
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


def export(
    run: Path | str,
    out: Path | str,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Path:
    """Write the model of a run to `out`, loadable with `AutoModelForCausalLM.from_pretrained(out)`; returns `out`.

    An adapter is merged into its base in float32, then cast; a full model is copied, or cast too if `dtype` is given. A
    base that was quantised stands in it as the numbers that the adapter was trained on. The tokenizer and the model
    card go with it. What is written is read again, and its log-probs are compared with those of base and adapter. The
    folder is written beside `out` and renamed when whole. `out` may also be a file NAME.gguf, as in gguf_file.py.

    Args:
        run: a run folder, or a folder that itself holds a model or adapter (a checkpoint).
        out: must not exist, or be an empty folder.
        dtype: float32, bfloat16 or float16; None keeps the one that the run held its weights in (`model.dtype`). Half
            precision rounds away changes smaller than about 0.2 % of a weight, and so a part of a short training. Of a
            GGUF file also q8_0; None keeps the types of the file that the run began with.
        trust_remote_code: run the Python that comes with the model.
        say: takes lines about what was compared, to show.

    Raises:
        UserError: no model in `run`, `out` is taken, the base model cannot be found, the disk is full, or what was
            written is not the model that was trained.
    """
    out, run = Path(os.path.abspath(Path(out).expanduser())), Path(run).expanduser()
    source = _model_folder(run)
    as_gguf = out.suffix == ".gguf"
    if dtype is not None and dtype not in (known := (*DTYPES, *(["q8_0"] if as_gguf else []))):
        raise unknown("dtype", dtype, known)
    _refuse_taken(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
        beside.mkdir()
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror or error}") from error
    try:
        folder = beside / "plain" if as_gguf else beside
        _write(run, source, folder, "float32" if as_gguf else dtype, trust_remote_code, say)
        if as_gguf:
            made = _write_gguf(run, source, folder, beside / out.name, dtype, say)
        else:
            made = beside
            if (run / SUMMARY).is_file():
                write_model_card(run, beside)
            for weights in beside.glob("*.safetensors"):  # saved readable by their owner alone; to hand on, it is not
                shutil.copymode(beside / "config.json", weights)
        _refuse_taken(out)
        if out.is_dir():
            out.rmdir()
        made.rename(out)
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


def _write(run: Path, source: Path, target: Path, dtype: str | None, trust: bool, say: Callable[[str], object]) -> None:
    """Write the model of `source` with its tokenizer, and compare what was written with what was trained."""
    adapted = (source / _ADAPTER).is_file()
    if not adapted and dtype is None:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*", "*.tmp"))
        return
    import torch

    from alignment.config import ModelConfig
    from alignment.evaluation import export_check
    from alignment.models.adapters import load_beside
    from alignment.models.loading import adapters_of, base_of_adapter, load_model, make_savable, quantization_of
    from alignment.models.scores import CARD, load_scorer

    config = ModelConfig(path=str(source), trust_remote_code=trust)  # the run may be another's: its own wish is none
    scores = (source / CARD).is_file()
    adapters = adapters_of(str(source))
    base = base_of_adapter(Path(adapters[-1])) if adapters else str(source)
    tokenizer = _tokenizer(source, base, trust)
    kept = str(section(read_config(run), "model").get("dtype"))
    if scores or kept not in DTYPES:
        kept = "float32"  # the scores of a model in half precision are not those that were trained

    trained: Any = load_scorer(config)[0] if scores else load_beside(config)
    groups, of = export_check.held_out_answers(run, tokenizer, trained)
    expected = export_check.values(trained, groups)
    if adapted and not scores:
        del trained
        trained = load_model(config)
    trained.to(getattr(torch, dtype or kept))
    if not scores:
        make_savable(trained)
    trained.save_pretrained(target)
    if scores:
        shutil.copy(source / CARD, target)
    del trained
    tokenizer.save_pretrained(target)

    again = ModelConfig(path=str(target), trust_remote_code=trust)
    written: Any = load_scorer(again)[0] if scores else load_model(again)
    kind, held = quantization_of(str(source)) if adapted else (None, "")
    # Its base computed in `held`, and so its own log-probs are no nearer than that.
    allowed = max(export_check.TOLERANCES[each] for each in (dtype or kept, held if kind else "float32"))
    say(export_check.refuse_other(expected, export_check.values(written, groups), of, allowed))


def _write_gguf(
    run: Path, source: Path, folder: Path, out: Path, dtype: str | None, say: Callable[[str], object]
) -> Path:
    """Write the plain model in `folder` to the file `out`, read it again, and compare the two; returns `out`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignment.config import ModelConfig
    from alignment.evaluation import export_check
    from alignment.evaluation.gguf_file import began_with, write_gguf
    from alignment.models.loading import load_model
    from alignment.models.scores import CARD

    if (folder / CARD).is_file():
        raise UserError(f"{run}: a model that scores answers is no language model, and GGUF files hold those")
    kind = write_gguf(folder, out, began_with(source), dtype)
    plain: Any = load_model(ModelConfig(path=str(folder)))
    groups, of = export_check.held_out_answers(run, AutoTokenizer.from_pretrained(folder), plain)
    expected = export_check.values(plain, groups)
    del plain
    written: Any = AutoModelForCausalLM.from_pretrained(out.parent, gguf_file=out.name, dtype=torch.float32)
    found = export_check.values(written, groups)
    say(export_check.refuse_other(expected, found, of, export_check.TOLERANCES[kind], f"GGUF, {kind}"))
    return out


def _tokenizer(source: Path, base: str, trust: bool) -> Any:
    from transformers import AutoTokenizer

    kept = any((source / name).is_file() for name in _TOKENIZER_FILES)
    try:
        return AutoTokenizer.from_pretrained(str(source) if kept else base, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of {source}: {' '.join(str(error).split())[:300]}") from error
