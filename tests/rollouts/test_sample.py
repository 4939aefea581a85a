"""Sampling: order, ends, greedy equality with one prompt alone, and the random state outside."""

from __future__ import annotations

import torch

from alignment.config import ModelConfig
from alignment.data.templates import check_tokenizer, encode_prompt
from alignment.models.loading import load_model, load_tokenizer
from alignment.models.logps import attach
from alignment.rollouts.sample import sample

CONFIG = ModelConfig(path="tiny", dtype="float32")
QUESTIONS = ["Name a fruit.", "Why is the sky blue, and why is it red in the evening?", "Hi!"]


def load():
    tokenizer = load_tokenizer(CONFIG)
    check_tokenizer(tokenizer)
    prompts = [encode_prompt(tokenizer, [{"role": "user", "content": question}]) for question in QUESTIONS]
    return attach(load_model(CONFIG)), tokenizer, prompts


def test_padding_and_batching_change_no_greedy_answer() -> None:
    model, tokenizer, prompts = load()
    together = sample(model, tokenizer, prompts, max_new_tokens=12, temperature=0)
    for prompt, answer in zip(prompts, together, strict=True):
        ids = torch.tensor([prompt])
        for token in answer.ids:  # by hand, one token at a time and without a cache
            with torch.no_grad():
                assert int(model(input_ids=ids).logits[0, -1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_same_seed_same_answers_and_nothing_outside_is_touched() -> None:
    model, tokenizer, prompts = load()
    state = torch.random.get_rng_state()
    model.train()
    first = sample(model, tokenizer, prompts, max_new_tokens=10, temperature=1.0, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    assert first == sample(model, tokenizer, prompts, max_new_tokens=10, temperature=1.0, seed=1)
    assert first != sample(model, tokenizer, prompts, max_new_tokens=10, temperature=1.0, seed=2)


def test_ends_are_kept_as_ids_and_left_out_of_the_text() -> None:
    model, tokenizer, prompts = load()
    for answer in sample(model, tokenizer, prompts * 4, max_new_tokens=60, temperature=1.0):
        end = tokenizer.eos_token_id
        assert answer.ids.count(end) == int(answer.finished)
        assert answer.finished == (answer.ids[-1] == end)
        assert tokenizer.eos_token not in answer.text
        assert len(answer.ids) <= 60
