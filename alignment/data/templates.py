"""Chat templates -> token ids: the prompt's ids, and the ids of the completion that is trained.

Three promises, checked for every row: the prompt's ids are a prefix of the whole's ids, so that training and sampling
see the same prompt; the end-of-turn token is part of the completion, so that the model learns to stop; no BOS twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.data.example import Message
from alignment.errors import UserError

TEMPLATES = ("chat", "raw")


def check_tokenizer(tokenizer: Any, template: str = "chat") -> None:
    """Refuse a tokenizer that cannot do `template`, before any row is touched. Sets a pad token where there is none.

    Raises:
        UserError: unknown template, no end-of-sequence token, no chat template, or one that is not prefix-stable.
    """
    if template not in TEMPLATES:
        raise UserError(f"unknown data.template '{template}': known: {', '.join(TEMPLATES)}")
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no end-of-sequence token: set tokenizer.eos_token and save it with the model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # only fills rows; every padded position is masked
    if template == "raw":
        return
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "the tokenizer has no chat template: give model.chat_template=FILE.jinja, "
            "or data.template=raw to train on the text as it stands"
        )
    encode_pair(tokenizer, [{"role": "user", "content": "Hi?"}], [{"role": "assistant", "content": "Hello."}])


def use_chat_template(tokenizer: Any, path: str | None) -> None:
    """Replace the tokenizer's chat template by the Jinja file at `path`, if given."""
    if path is None:
        return
    file = Path(path)
    if not file.is_file():
        raise UserError(f"model.chat_template: no such file: {path}")
    try:
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.chat_template={path}: cannot be read: {error}") from error


def encode_prompt(tokenizer: Any, prompt: list[Message], template: str = "chat") -> list[int]:
    """Token ids of the prompt, up to where the model's answer begins."""
    if template == "raw":
        return list(tokenizer(_raw_text(prompt), add_special_tokens=True)["input_ids"])
    return _plain_ids(tokenizer, _render(tokenizer, prompt, add_generation_prompt=True))


def encode_pair(
    tokenizer: Any, prompt: list[Message], completion: list[Message], template: str = "chat"
) -> tuple[list[int], list[int]]:
    """`encode_answers` of a prompt with one completion: (prompt_ids, completion_ids)."""
    prompt_ids, (completion_ids,) = encode_answers(tokenizer, prompt, [completion], template)
    return prompt_ids, completion_ids


def encode_answers(
    tokenizer: Any, prompt: list[Message], completions: Sequence[list[Message]], template: str = "chat"
) -> tuple[list[int], list[list[int]]]:
    """Token ids of a prompt and of each of its completions, end-of-turn token included.

    Returns:
        (prompt_ids, ids of each completion); the prompt's followed by a completion's is what the model sees.

    Raises:
        UserError: the template writes the prompt differently once an answer follows it.
    """
    if template == "raw":
        prompt_ids = encode_prompt(tokenizer, prompt, "raw")
        found = [_plain_ids(tokenizer, _raw_text(completion)) for completion in completions]
        return prompt_ids, [_end_at_turn(tokenizer, ids) for ids in found]
    before = _render(tokenizer, prompt, add_generation_prompt=True)
    wholes = [_render(tokenizer, prompt + completion, add_generation_prompt=False) for completion in completions]
    for whole in wholes:
        if not whole.startswith(before):
            raise UserError(
                "the chat template is not prefix-stable: with an answer behind it, the prompt is written differently"
                f" ({_first_difference(before, whole)}). Give model.chat_template=FILE.jinja, or data.template=raw"
            )
    prompt_ids, *whole_ids = tokenizer([before, *wholes], add_special_tokens=False)["input_ids"]
    found = []
    for whole, ids in zip(wholes, whole_ids, strict=True):
        if ids[: len(prompt_ids)] == prompt_ids:
            found.append(ids[len(prompt_ids) :])
        else:  # a token spans the border: sampling starts behind the prompt's ids, so training must, too
            found.append(_plain_ids(tokenizer, whole[len(before) :]))
    return prompt_ids, [_end_at_turn(tokenizer, ids) for ids in found]


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, int]]:
    """(text, how many tokens it is of) for every token, in order; tokens that share a character are one text."""
    found: list[tuple[str, int]] = []
    before: list[int] = []  # decoded alone, some tokenizers' words lose the space in front of them
    waiting: list[int] = []
    for token in ids:
        waiting.append(token)
        text = tokenizer.decode([*before, *waiting])[len(tokenizer.decode(before)) :]
        if not text.endswith("\ufffd"):
            found.append((text, len(waiting)))
            before, waiting = waiting, []
    return [*found, (tokenizer.decode(waiting), len(waiting))] if waiting else found


def _end_at_turn(tokenizer: Any, ids: list[int]) -> list[int]:
    """Cut what a template writes behind its end-of-turn token (a newline, say), or add that token where it has none."""
    end = tokenizer.eos_token_id
    if end in ids:
        last = len(ids) - 1 - ids[::-1].index(end)
        if not tokenizer.decode(ids[last + 1 :], skip_special_tokens=True).strip():
            return ids[: last + 1]
    tail = ids[-1:]
    if tail and tail[0] in tokenizer.all_special_ids:  # another end-of-turn token, as Gemma's
        return ids
    return [*ids, end]


def _render(tokenizer: Any, messages: list[Message], add_generation_prompt: bool) -> str:
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except Exception as error:  # Jinja errors of many kinds: a template may refuse roles or orders
        roles = " ".join(message["role"] for message in messages)
        raise UserError(f"the chat template refused the turns '{roles}': {error}") from error


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _raw_text(messages: list[Message]) -> str:
    return "".join(message["content"] for message in messages)


def _first_difference(before: str, whole: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole)))
    return f"'{before[at : at + 20]}' became '{whole[at : at + 20]}'"
