"""Models that score: a language model's body with a linear head, read at the last token of each completion.

They are transformers' own `…ForSequenceClassification` models, so what is saved loads anywhere. As in logps.py the
patched `forward` is the model's own, so that every pass enters through the wrapped model's call. The engine's groups do
the rest: a reward model's completions are answers, a preference model's are two answers, one behind the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from alignment.batching.packing import Batch
from alignment.config import ModelConfig
from alignment.errors import UserError
from alignment.models.loading import (
    adapters_of,
    base_of_adapter,
    is_adapter,
    load_part,
    load_weights,
    merge_adapter,
    refuse_pickles,
    resolve,
    torch_dtype,
)
from alignment.models.logps import attach, call, causal_lm

HEAD = "score"  # the head's name in transformers
CARD = "scorer.json"  # beside the weights: what the scores mean


@dataclass(frozen=True)
class Scorer:
    """What a saved scoring model is: written beside its weights."""

    kind: str  # reward: one answer at a time; preference: two answers in one context; gap: one behind a reference
    objectives: tuple[str, ...] = ()  # a score for each; none: one score
    template: str = "chat"  # as data.template

    @property
    def heads(self) -> int:
        return max(1, len(self.objectives))

    def save(self, folder: Path) -> None:
        (folder / CARD).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Scorer | None:
        """What the folder says, or None: a reward model that was trained elsewhere."""
        file = folder / CARD
        if not file.is_file():
            return None
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            card = cls(stored["kind"], tuple(stored["objectives"]), stored["template"])
            if not all(isinstance(text, str) for text in (card.kind, card.template, *card.objectives)):
                raise TypeError("a text is needed")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UserError(f"{file} is no card of a scoring model: {' '.join(str(error).split())[:200]}") from error
        return card


def completion_scores(model: nn.Module, batch: Batch) -> Tensor:
    """Scores (C, heads), float32, of the batch's completions, read at each one's last token.

    Args:
        model: a model that `attach_scores` has prepared, wrapped or not.
        batch: rows on the model's device.
    """
    return call(model, batch, {"ends": batch.ends})["scores"]


def antisymmetric(scores: Tensor) -> Tensor:
    """Scores (2B, 1) of (first, second) and (second, first) by turns -> the logits (B,) of first ≻ second."""
    both = scores.view(-1, 2)
    return (both[:, 0] - both[:, 1]) / 2


def attach_scores(model: nn.Module) -> nn.Module:
    """Patch the `forward` of the scoring model in `model` (once); returns `model`."""
    return attach(model, _forward)


def _forward(self: Any, *args: Any, completion: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    if completion is None:
        return type(self).forward(self, *args, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    hidden = self.base_model(*args, **kwargs, use_cache=False).last_hidden_state
    hidden = hidden.flatten(0, 1)[completion["ends"]]
    head = getattr(self, HEAD)
    with torch.autocast(hidden.device.type, enabled=False):  # a reward in bfloat16 has three digits
        # The head's weights are float32, unless FSDP keeps them in half precision in a pass.
        return {"scores": head(hidden.to(next(head.parameters()).dtype)).float()}


def is_scorer(model: Any) -> bool:
    """Whether `model`, wrapped or not, scores completions instead of giving their log-probs."""
    return hasattr(causal_lm(model), HEAD)


def new_scorer(config: ModelConfig, heads: int, seed: int) -> Any:
    """The body of `config.path` with a head of `heads` scores: its own where it has one of that size, else a fresh one.

    Raises:
        UserError: no such model, an architecture without a scoring class, or a head of another size.
    """
    folder = resolve(_path(config))
    found = heads_of(folder, config)
    if found is not None and found != heads:
        raise UserError(
            f"model.path={config.path} has a head of {found} scores, {heads} wanted: start from a base model"
        )
    torch.manual_seed(seed)
    model, missing = _load(folder, config, heads)
    if found is None and missing == [f"{HEAD}.weight"]:
        missing = []
    _refuse_missing(missing, config)
    return model


def load_scorer(config: ModelConfig) -> tuple[Any, Scorer]:
    """A trained scoring model with adapters merged, in eval mode and attached, and what it is.

    Raises:
        UserError: no such folder, no head in it, or a head of another size than its card says.
    """
    folder = resolve(_path(config))
    heads = heads_of(folder, config)
    if heads is None:
        raise UserError(
            f"{config.path} has no score head: it is not a reward or preference model (train one with recipe=reward)"
        )
    card = Scorer.load(Path(folder)) or Scorer("reward")
    if heads != card.heads:
        raise UserError(f"{config.path} has a head of {heads} scores, a {card.kind} model has {card.heads}")
    model, missing = _load(folder, config, heads)
    _refuse_missing(missing, config)
    return attach_scores(model).eval(), card


def heads_of(folder: str, config: ModelConfig) -> int | None:
    """How many scores the head in `folder` has; None where there is none (a base model, or an adapter without one)."""
    if is_adapter(folder):
        from peft import PeftConfig
        from peft.utils.save_and_load import load_peft_weights

        refuse_pickles(folder, config)
        if PeftConfig.from_pretrained(folder).task_type != "SEQ_CLS":
            return None
        shapes = [w.shape[0] for name, w in load_peft_weights(folder, device="cpu").items() if f".{HEAD}." in name]
        return shapes[0] if shapes else None
    settings = load_part(AutoConfig, folder, config, "configuration")
    is_classifier = any(name.endswith("ForSequenceClassification") for name in settings.architectures or [])
    return settings.num_labels if is_classifier else None


def _load(folder: str, config: ModelConfig, heads: int) -> tuple[Any, list[str]]:
    """(model with a head of `heads`, names of weights that its folder lacks); adapters are merged into it."""
    adapters = adapters_of(folder)
    base, dtype = base_of_adapter(Path(adapters[-1])) if adapters else folder, torch_dtype(config.dtype)
    factory: Any = AutoModelForSequenceClassification
    model, info = load_weights(factory, base, config, "scoring model", adapters, dtype, num_labels=heads)
    if not hasattr(model, HEAD):
        raise UserError(f"model.path={config.path}: {type(model).__name__} keeps no head named '{HEAD}'")
    getattr(model, HEAD).float()  # a few thousand numbers that decide everything
    missing = [name for name in info["missing_keys"] if "rotary" not in name]
    for adapter in reversed(adapters):
        refuse_pickles(adapter, config)
        model = merge_adapter(model, adapter)
        if heads_of(adapter, config):
            missing = [name for name in missing if not name.startswith(f"{HEAD}.")]
    return model, missing


def _refuse_missing(missing: Sequence[str], config: ModelConfig) -> None:
    if missing:
        raise UserError(f"model.path={config.path} lacks weights of its head or body: {', '.join(sorted(missing)[:3])}")


def _path(config: ModelConfig) -> str:
    if not config.path:
        raise UserError("no model: give model=tiny, model=smollm2-135m or model.path=FOLDER|HUB_ID")
    return config.path


def scoring_pad(tokenizer: Any) -> int:
    """A padding token that no answer ends with, set in the tokenizer; its id.

    transformers reads the score at the last token that is not padding. Many chat models pad with the token that also
    ends a turn, which would then be passed over.
    """
    ends = {tokenizer.eos_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in ends:
        others = [i for i in tokenizer.all_special_ids if i not in ends]
        if not others:  # any token will do that does not end a turn
            others = [i for i in range(len(tokenizer)) if i not in ends]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(others[0])
    return tokenizer.pad_token_id
