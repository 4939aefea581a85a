"""A judge model in this process: it writes answers, and says how likely each verdict is without writing one."""

from __future__ import annotations

import inspect
import math
import os
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from alignment.batching.groups import Group, Unit
from alignment.config import ModelConfig
from alignment.data.example import Message
from alignment.data.templates import check_tokenizer
from alignment.errors import UserError
from alignment.feedback import checks
from alignment.feedback.chat import ChatSettings
from alignment.feedback.verdicts import Reply
from alignment.models.completion_sums import completion_sums
from alignment.models.layout_check import choose_layout
from alignment.models.loading import DTYPES, load_model, load_tokenizer, resolve
from alignment.models.logps import attach, causal_lm
from alignment.models.precision import AUTO
from alignment.rollouts.sample import sample

TOO_LONG = "prompt too long"


class LocalChat:
    """Any model that `path` names, loaded when it is first asked. Greedy answers are the same in any batch, up to
    rounding; sampled ones depend on what is asked in one call.
    """

    def __init__(self, settings: ChatSettings, counts: Counter[str]) -> None:
        checks.choice(settings, "dtype", (AUTO, *DTYPES))
        assert settings.path is not None
        self.settings, self.counts, self.name = settings, counts, settings.path
        resolve(settings.path)  # a name that is not there is said at once
        self._config = ModelConfig(
            name=settings.path,
            path=settings.path,
            revision=settings.revision,
            dtype=settings.dtype,
            chat_template=settings.chat_template,
            trust_remote_code=settings.trust_remote_code,
        )

    @cached_property
    def tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self._config)
        check_tokenizer(tokenizer, "chat")
        return tokenizer

    @cached_property
    def model(self) -> Any:
        place = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        return attach(load_model(self._config).to(place).eval())  # type: ignore[arg-type]

    @cached_property
    def layout(self) -> str:
        layout, reason = choose_layout(self.model, "shared")
        if reason:
            print(f"{self.name}: {reason}")
        return layout

    @cached_property
    def window(self) -> float:
        """The most tokens that the model can see."""
        return getattr(causal_lm(self.model).config.get_text_config(), "max_position_embeddings", None) or math.inf

    def generate(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """One answer to each conversation; one that leaves no room for an answer of max_tokens has none."""
        prompts = [encode_conversation(self.tokenizer, conversation) for conversation in conversations]
        longest = self.window - (self.settings.max_tokens or 0)
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= longest]
        answers = sample(
            self.model,
            self.tokenizer,
            [prompts[i] for i in fitting],
            max_new_tokens=self.settings.max_tokens or 0,
            temperature=self.settings.temperature or 0.0,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed or 0,
        )
        self.counts["requests"] += len(fitting)
        replies = [Reply(None, TOO_LONG)] * len(prompts)
        for i, answer in zip(fitting, answers, strict=True):
            replies[i] = Reply(answer.text, None if answer.finished else "cut off")
        return replies

    def word_probabilities(
        self, conversations: Sequence[list[Message]], leads: Sequence[str], words: Sequence[str]
    ) -> list[list[float] | None]:
        """See `ScoringChat`. The conversation is encoded once for all words."""
        units: list[Unit] = []
        for number, (conversation, lead) in enumerate(zip(conversations, leads, strict=True)):
            prompt = encode_conversation(self.tokenizer, conversation, lead)
            completions = word_ids(self.tokenizer, lead, words)
            if len(prompt) + max(map(len, completions)) <= self.window:
                units.append(Unit(str(number), (Group(tuple(prompt), tuple(completions)),)))
        self.counts["requests"] += len(units)
        found: list[list[float] | None] = [None] * len(conversations)
        pad, budget = self.tokenizer.pad_token_id, self.settings.token_budget
        sums = completion_sums(self.model, units, self.layout, pad, token_budget=budget)
        for unit, row in zip(units, sums, strict=True):
            found[int(unit.id)] = among(row, unit.groups[0].completions)
        return found


def among(logps: Sequence[float], words: Sequence[tuple[int, ...]]) -> list[float]:
    """P(word | it is one of these words), from the log-probs of their token sequences.

    A sequence that begins another ("1" and "10", where digits are tokens) is as likely as all that begins so: what the
    longer one takes is subtracted, so that the words exclude each other.
    """
    highest = max(logps)
    p = [math.exp(logp - highest) for logp in logps]
    own = list(p)
    for word, share in zip(words, p, strict=True):
        beginnings = [j for j, other in enumerate(words) if len(other) < len(word) and word[: len(other)] == other]
        if beginnings:
            own[max(beginnings, key=lambda j: len(words[j]))] -= share
    own = [max(0.0, share) for share in own]
    return [share / sum(own) for share in own]


def word_ids(tokenizer: Any, lead: str, words: Sequence[str]) -> list[tuple[int, ...]]:
    """The token ids of each word as it stands behind `lead` and a space."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    before = ids(lead)
    behind = [ids(f"{lead} {word}") for word in words]
    stable = all(whole[: len(before)] == before and len(whole) > len(before) for whole in behind)
    return [whole[len(before) :] for whole in behind] if stable else [ids(f" {word}") for word in words]


def encode_conversation(tokenizer: Any, messages: list[Message], lead: str = "") -> list[int]:
    """Token ids up to where the answer begins, and of `lead`, with which it begins.

    Control tokens are those that the chat template writes, and nothing else: where a message holds "<|im_end|>" it is
    encoded as the letters that it is. Any other text gets the ids of `encode_prompt`.

    Raises:
        UserError: a chat template that refuses these roles, or a transformers that would let such tokens through.
    """
    if "sanitize_control_tokens" not in inspect.signature(tokenizer.apply_chat_template).parameters:
        raise UserError("a judge in this process needs transformers 5.20 or newer: pip install -U transformers")
    try:
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )
    except Exception as error:  # Jinja errors of many kinds: a template may refuse roles or orders
        roles = " ".join(message["role"] for message in messages)
        raise UserError(f"the judge's chat template refused the turns '{roles}': {error}") from error
    return [*ids, *tokenizer(lead, add_special_tokens=False, split_special_tokens=True)["input_ids"]]
