"""Texts as vectors: the mean of a language model's last hidden states over the text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from alignment.config import ModelConfig
from alignment.models.loading import load_model, load_tokenizer

MOST_TOKENS = 512  # of a text; the rest is not read


class Embedder:
    """Mean-pooled hidden states of a causal language model.

    Args:
        path: as `model.path` of a run.
        dtype: of the weights.
        batch_size: texts at once.

    Raises:
        UserError: no such model.
    """

    def __init__(self, path: str, dtype: str = "float32", batch_size: int = 32) -> None:
        config = ModelConfig(path=path, name=path, dtype=dtype)
        self.tokenizer, self.batch_size = load_tokenizer(config), batch_size
        device = "cuda" if torch.cuda.is_available() else "cpu"
        # The body alone: nothing is predicted.
        self.body: Any = load_model(config).base_model.eval().to(device)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of n texts, float32 (n, d). A text without tokens is all zeros."""
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"][:MOST_TOKENS] for text in texts]
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
