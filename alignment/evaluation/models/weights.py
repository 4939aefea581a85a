"""A model with weights: its tokenizer at once, the weights when they are first needed, and let go afterwards."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from alignment.config import ModelConfig
from alignment.data.example import Message
from alignment.data.templates import check_tokenizer, encode_prompt
from alignment.models.adapters import load_beside
from alignment.models.layout_check import choose_layout
from alignment.models.loading import adapters_of, base_of_adapter, load_tokenizer, resolve
from alignment.models.logps import attach
from alignment.rollouts.sample_file import digest_of_files


class Weights:
    """The model behind `spec`, to sample from and to score with.

    Args:
        spec: as `resolve` takes it.
        dtype: of the weights.
        template: chat, or raw.

    Raises:
        UserError: no such model, or a tokenizer without the chat template that is asked for.
    """

    def __init__(self, spec: str, dtype: str, template: str) -> None:
        self.spec, self.template = spec, template
        self.config = ModelConfig(path=spec, name=spec, dtype=dtype)
        self.tokenizer: Any = load_tokenizer(self.config)
        check_tokenizer(self.tokenizer, template)
        self._model: Any = None
        self._layout: str | None = None

    @cached_property
    def key(self) -> list[Any]:
        """What the weights are: digests of the files of adapters and base, the id of what is fetched from a hub."""
        return key_of(self.spec, self.config.dtype)

    def same_tokens(self, other: Weights, prompts: Sequence[list[Message]]) -> bool:
        """Whether both mean the same by a token id, and put the prompts in the same ones."""
        if self.tokenizer.get_vocab() != other.tokenizer.get_vocab():
            return False
        return all(self.encode(prompt) == other.encode(prompt) for prompt in prompts)

    def encode(self, prompt: list[Message]) -> list[int]:
        """Token ids of the prompt."""
        return encode_prompt(self.tokenizer, prompt, self.template)

    @property
    def model(self) -> Any:
        """The model on its device."""
        if self._model is None:
            model = load_beside(self.config).eval()
            self._model = model.to("cuda") if torch.cuda.is_available() else model
        return self._model

    @property
    def scorer(self) -> tuple[Any, str]:
        """(the model, prepared for `token_logps`; the layout that it takes)."""
        if self._layout is None:
            self._layout = choose_layout(attach(self.model), "shared")[0]
        return self.model, self._layout

    def release(self) -> None:
        """Let the weights go; they are loaded anew when they are needed again."""
        self._model = self._layout = None
        let_go()


def key_of(spec: str, dtype: str) -> list[Any]:
    """What the weights behind `spec` are: digests of the files of adapters and base, the id of what is fetched."""
    folder = resolve(spec)
    parts = adapters_of(folder)
    base = base_of_adapter(Path(parts[-1])) if parts else folder
    return [dtype, *(digest_of_files(part) or part for part in [*parts, base])]


def let_go() -> None:
    """Give the memory of a model that is held no more back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
