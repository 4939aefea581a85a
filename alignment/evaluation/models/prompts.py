"""The prompts that every model is asked, each once, and what is known of them besides."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignment.data.example import Message
from alignment.data.readers import load_examples
from alignment.errors import UserError, nearest
from alignment.feedback.label import context_of
from alignment.rollouts.sample_file import by_prompt


@dataclass(frozen=True)
class PromptSet:
    """P prompts without repeats."""

    name: str
    prompts: list[list[Message]]
    contexts: Sequence[Mapping[str, Any]]  # of each prompt, for feedback that looks at more than the texts
    read: str = ""  # how the rows were read, for a person

    @cached_property
    def keys(self) -> list[str]:
        """What two equal prompts have in common, of each prompt."""
        return [prompt_key(prompt) for prompt in self.prompts]

    def __len__(self) -> int:
        return len(self.prompts)


def prompt_key(prompt: Sequence[Message]) -> str:
    return json.dumps([[turn["role"], turn["content"]] for turn in prompt], ensure_ascii=False)


def digest(*parts: Any) -> str:
    """12 hex digits of plain values: the name of what was computed from them."""
    content = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(content.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def load_prompts(
    source: str,
    *,
    format: str = "auto",
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    answer_field: str | None = None,
) -> PromptSet:
    """The prompts of `source` in any known format, in order of first appearance.

    Args:
        source, format, split: as for `load_examples`; answers that stand there are not looked at.
        limit: at most so many, drawn with the seed, in their order.
        answer_field: the field of a row that is context["reference"] to feedback.

    Raises:
        UserError: as `load_examples` does; no row has the `answer_field`.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit}: must be at least 1")
    loaded = load_examples(source, format=format, split=split)
    examples = by_prompt(loaded.examples, keep=False)
    repeated = len(loaded.examples) - len(examples)
    if limit is not None and limit < len(examples):
        examples = [examples[at] for at in sorted(random.Random(seed).sample(range(len(examples)), limit))]
    contexts = [context_of(example, answer_field) for example in examples]
    if answer_field is not None and not any("reference" in known for known in contexts):
        fields = sorted({key for known in contexts for key in known})
        raise UserError(f"--answer-field {answer_field}: no row of {source} has it; {nearest(answer_field, fields)}")
    read = loaded.report.summary() + (f" | {repeated} repeated prompts, each asked once" if repeated else "")
    return PromptSet(source, [example.prompt for example in examples], contexts, read)
