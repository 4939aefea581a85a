"""Whether one text contradicts or follows from another, by a model of natural language inference (NLI)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from alignment.config import ModelConfig
from alignment.errors import UserError
from alignment.models.embeddings import most_tokens
from alignment.models.loading import load_part, load_tokenizer, resolve, torch_dtype

SIGNS = {"contradict": 1.0, "entail": -1.0}  # beginning of a label, in lower case; any other label is neutral


class Entailment:
    """A sequence classifier of two texts, whose labels say which is which: `entailment`, `contradiction`, …

    Args:
        path: a folder or hub id with the weights of a …ForSequenceClassification whose `id2label` (config.json) has one
            label that begins with "entail" and one that begins with "contradict", in any case. All others are neutral.
        dtype: of the weights.
        batch_size: pairs at once.

    Raises:
        UserError: no such model, another kind of model, or other labels.
    """

    def __init__(self, path: str, dtype: str = "float32", batch_size: int = 32) -> None:
        config, target = ModelConfig(path=path, name=path, dtype=dtype), resolve(path)
        self.signs = signs_of(path)
        self.tokenizer: Any = load_tokenizer(config)
        self.tokenizer.truncation_side, self.tokenizer.padding_side = "right", "right"
        how = {"dtype": torch_dtype(dtype), "use_safetensors": True, "output_loading_info": True}
        model, info = load_part(AutoModelForSequenceClassification, target, config, "model", **how)
        if info["missing_keys"]:
            raise UserError(f"{path} lacks weights: {', '.join(sorted(info['missing_keys'])[:3])}")
        self.model: Any = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.longest, self.batch_size = most_tokens(self.tokenizer, self.model.config), batch_size

    @torch.no_grad()
    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How far the second text of each pair contradicts the first, in [-1, 1].

        The probability of the likeliest label, times 1 for a contradiction, 0 for neutral and -1 for an entailment.
        """
        found = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            first, second = zip(*(pairs[place] for place in chosen), strict=True)
            batch = self.tokenizer(
                list(first), list(second), truncation=True, max_length=self.longest, padding=True, return_tensors="pt"
            )
            highest, label = self.model(**batch.to(self.model.device)).logits.float().softmax(-1).max(-1)
            scores = (highest * torch.tensor(self.signs, device=highest.device)[label]).tolist()
            for place, score in zip(chosen, scores, strict=True):
                found[place] = score
        return found


def signs_of(path: str) -> list[float]:
    """1, 0 or -1 for each label of the classifier; UserError as for `Entailment`. The weights are not read."""
    settings = load_part(AutoConfig, resolve(path), ModelConfig(path=path, name=path), "configuration")
    kinds = settings.architectures or ["model of no known kind"]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise UserError(f"{path} is a {kinds[0]}: a …ForSequenceClassification with NLI labels is needed")
    labels: dict[int, str] = settings.id2label
    names = [str(labels[number]).lower() for number in sorted(labels)]
    for beginning in SIGNS:
        if sum(name.startswith(beginning) for name in names) != 1:
            raise UserError(
                f"{path}: its labels are {', '.join(labels[number] for number in sorted(labels))}, of which not one"
                f" begins with '{beginning}'\nMend: a model of natural language inference, with entailment and"
                " contradiction in id2label of its config.json"
            )
    return [next((sign for beginning, sign in SIGNS.items() if name.startswith(beginning)), 0.0) for name in names]
