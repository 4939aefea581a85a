"""The built-in model `tiny`: it loads the plain way, is small, and writes short answers that it ends itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import alignment
from alignment.data.templates import check_tokenizer, encode_pair, encode_prompt
from alignment.feedback.rules import PlainWords

FOLDER = Path(alignment.__file__).parent / "models" / "builtin" / "tiny"
PROMPTS = ["How do I keep bread fresh?", "Tell me about a cat.", "What is a budget?", "How do I choose a good hat?"]


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(FOLDER)


def test_the_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 6 * 2**20


def test_the_shape_exercises_grouped_heads(tiny: tuple[Any, Any]) -> None:
    config = tiny[0].config
    assert config.num_attention_heads // config.num_key_value_heads == 2
    assert config.tie_word_embeddings
    assert config.vocab_size == len(tiny[1])


def test_the_tokenizer_is_fit_for_training(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    check_tokenizer(tokenizer)  # the chat template is prefix-stable
    chat = [{"role": "user", "content": "Hi?"}], [{"role": "assistant", "content": "Hello."}]
    prompt, completion = encode_pair(tokenizer, *chat)
    assert tokenizer.decode(prompt) == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(completion) == "Hello.<|im_end|>"


@pytest.mark.parametrize("text", ["Ça va? 100 % – naïve", "tabs\tand\nlines\n\n  spaces ", "猫 🙂 \x00"])
def test_every_text_survives_the_tokenizer(tiny: tuple[Any, Any], text: str) -> None:
    assert tiny[1].decode(tiny[1](text, add_special_tokens=False)["input_ids"]) == text


def test_it_writes_english_and_stops(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    answers, finished = [], 0
    torch.manual_seed(0)
    for prompt in PROMPTS:
        ids = torch.tensor([encode_prompt(tokenizer, [{"role": "user", "content": prompt}])])
        with torch.inference_mode():
            rows = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=160, do_sample=True, num_return_sequences=4
            )
        for row in rows[:, ids.shape[1] :].tolist():
            finished += tokenizer.eos_token_id in row
            answers.append(tokenizer.decode(row, skip_special_tokens=True))
    assert finished >= 14  # of 16
    scores = PlainWords().score([[]] * len(answers), answers)
    assert sum(scores) / len(scores) > 2.5
