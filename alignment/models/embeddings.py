"""Texts as vectors: the mean of a model's last hidden states over the text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from alignment.config import ModelConfig
from alignment.errors import UserError
from alignment.models.loading import adapters_of, load_model, load_part, load_tokenizer, resolve, torch_dtype

MOST_TOKENS = 512  # of a text; the rest is not read


class Embedder:
    """Mean-pooled hidden states of a causal language model, or of an encoder such as a sentence-embedding model.

    An encoder's texts stand between the tokens that its tokenizer puts around them ([CLS] and [SEP]), which are pooled
    too, as sentence-embedding models with mean pooling do.

    Args:
        path: a built-in's name, folder, run, adapter or hub id.
        dtype: of the weights.
        batch_size: texts at once.

    Raises:
        UserError: no such model.
    """

    def __init__(self, path: str, dtype: str = "float32", batch_size: int = 32) -> None:
        config = ModelConfig(path=path, name=path, dtype=dtype)
        self.tokenizer, self.batch_size = load_tokenizer(config), batch_size
        self.tokenizer.truncation_side = "right"
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.body: Any = _body(config).eval().to(device)
        self.special = self.tokenizer.cls_token_id is not None
        self.longest = most_tokens(self.tokenizer, self.body.config)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of n texts, float32 (n, d). A text without tokens is all zeros."""
        how = {"add_special_tokens": self.special, "truncation": True, "max_length": self.longest}
        ids = [self.tokenizer(text, **how)["input_ids"] if text else [] for text in texts]
        vectors = np.zeros((len(texts), self.body.config.hidden_size), dtype=np.float32)
        order = sorted((place for place, found in enumerate(ids) if found), key=lambda place: len(ids[place]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            longest = len(ids[chosen[-1]])
            rows = torch.tensor([ids[place] + [0] * (longest - len(ids[place])) for place in chosen])
            mask = torch.tensor([[1] * len(ids[place]) + [0] * (longest - len(ids[place])) for place in chosen])
            rows, mask = rows.to(self.body.device), mask.to(self.body.device)
            states = self.body(input_ids=rows, attention_mask=mask).last_hidden_state.float()
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            vectors[chosen] = pooled.cpu().numpy()
        return vectors


def most_tokens(tokenizer: Any, settings: Any) -> int:
    """How many tokens of a text are read: MOST_TOKENS, or what tokenizer or model takes where that is less."""
    positions = getattr(settings, "max_position_embeddings", None) or MOST_TOKENS
    return min(MOST_TOKENS, tokenizer.model_max_length, positions)


def _body(config: ModelConfig) -> Any:
    """The model without a head: nothing is predicted."""
    target = resolve(str(config.path))
    if adapters_of(target):
        return load_model(config).base_model
    how = {"dtype": torch_dtype(config.dtype), "use_safetensors": True}
    model, info = load_part(AutoModel, target, config, "model", **how, output_loading_info=True)
    missing = [key for key in info["missing_keys"] if "rotary" not in key and "pooler" not in key]  # no pooler is asked
    if missing:
        raise UserError(f"{config.path} lacks weights: {', '.join(sorted(missing)[:3])}")
    return model.get_encoder() if model.config.is_encoder_decoder else model
