"""The ground truth of DPO's controlled sentiment: p(positive) of a RoBERTa classifier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

MODEL = "siebert/sentiment-roberta-large-english"


class Positive:
    """The probability that prompt and completion together are a positive review, in [0, 1]."""

    @cached_property
    def classifier(self) -> Any:
        import torch
        from transformers import pipeline

        device = 0 if torch.cuda.is_available() else -1
        return pipeline("sentiment-analysis", model=MODEL, device=device, top_k=None, truncation=True)

    def score(self, prompts: Sequence[Any], completions: Sequence[str], context: Any = None) -> list[float]:
        """One probability for each completion."""
        texts = [f"{prompt[-1]['content']}{text}" for prompt, text in zip(prompts, completions, strict=True)]
        found = self.classifier(texts, batch_size=64)
        return [next(each["score"] for each in row if each["label"] == "POSITIVE") for row in found]
