"""Make the built-in model `tiny`: about 2.4 million weights, trained from scratch on short model-written answers.

    python scripts/make_everyday.py   # first: the raw answers of the training prompts
    python scripts/make_tiny.py

Stage 1 samples more text, so that the model sees enough English: two answers of SmolLM2-135M-Instruct to each of about
850 prompts put together from a list of topics and a list of questions (kept in a raw file; a stopped run goes on).
Stage 2 trains a byte-level BPE tokenizer, stage 3 the model, in the chat template, on those answers and on the answers
to the *training* prompts of `everyday`; the test prompts are never seen. Stage 4 writes the folder in bfloat16.
On one CPU core sampling takes about twenty minutes, training about ten.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path
from typing import Any

from make_everyday import RAW, ROOT, read_rows, sample_all, split_of, whole_sentences

EXTRA_RAW = ROOT / "build" / "tiny_raw.jsonl"
OUTPUT = ROOT / "alignment" / "models" / "builtin" / "tiny"
VOCABULARY = 4096
PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
QUESTIONS = (
    "What is good about {}?",
    "Tell me about {}.",
    "How do I choose {}?",
    "Why do people like {}?",
    "Give me a tip about {}.",
    "Explain {} in simple words.",
    "What should I know about {}?",
    "How do I take care of {}?",
)
TOPICS = """
a cat;a dog;a rabbit;a goldfish;a horse;a hen;a pony;birds;bees;ants;butterflies;frogs;elephants;whales;owls;a turtle
an apple tree;roses;grass;a lemon;tomatoes;potatoes;carrots;onions;beans;mushrooms;strawberries;bananas;herbs;a lawn
bread;cheese;soup;rice;pasta;eggs;tea;coffee;milk;honey;salt;sugar;chocolate;pancakes;pizza;salad;jam;cake;fish;water
a knife;a pan;an oven;a kettle;a fridge;a lamp;a chair;a table;a sofa;a bed;a carpet;a window;a door;a mirror;a clock
a bicycle;a car;a bus;a train;a plane;a boat;a tent;a map;a suitcase;a passport;a hotel;a beach;a mountain;a lake
a hammer;a screw;paint;a ladder;a drill;glue;a rope;a light bulb;a battery;a tap;a roof;a fence;a garden shed
a book;a newspaper;a letter;a diary;a library;a poem;a song;a guitar;a piano;a film;a photo;a drawing;a puzzle;chess
running;swimming;walking;dancing;football;tennis;yoga;fishing;knitting;cooking;baking;reading;singing;camping
school;homework;a test;a teacher;a job;a meeting;a boss;a holiday;a birthday;a wedding;a party;a present;a picnic
money;a bank;a budget;a bill;rent;savings;a shop;a market;a sale;a refund;a loan;insurance;a tip at a restaurant
sleep;a cold;a headache;teeth;hands;eyes;the heart;a walk in the woods;fresh air;vegetables;a first aid kit;stress
a friend;a neighbour;a baby;a child;a grandmother;a brother;a sister;a family dinner;an apology;a compliment;a secret
the sun;the moon;stars;rain;snow;wind;a storm;a rainbow;summer;winter;spring;autumn;the sea;a river;a forest;a desert
a phone;a computer;an email;a password;the internet;a printer;a camera;a radio;a game;a robot;a website;headphones
a coat;shoes;a hat;gloves;a shirt;a sweater;an umbrella;a scarf;socks;a bag;a watch;glasses;soap;a toothbrush;a towel
"""


def extra_prompts() -> list[str]:
    """Every question about every topic that falls to it: half of all combinations, spread evenly."""
    topics = [topic for line in TOPICS.split("\n") for topic in line.split(";") if topic]
    combinations = itertools.product(enumerate(topics), enumerate(QUESTIONS))
    return [question.format(topic) for (i, topic), (j, question) in combinations if (i + j) % 2 == 0]


def conversations() -> list[tuple[str, str]]:
    """(prompt, answer) for everything the model is trained on, without unfinished sentences and without repeats."""
    rows = [row for row in read_rows(RAW) if split_of(row["prompt"]) == "train"] + read_rows(EXTRA_RAW)
    pairs = []
    for row in rows:
        for answer in row["answers"]:
            text = answer["text"] if answer["finished"] else whole_sentences(answer["text"])
            if len(text.split()) >= 5:
                pairs.append((row["prompt"], text))
    return list(dict.fromkeys(pairs))


def train_tokenizer(texts: list[str]) -> Any:
    """Stage 2: byte-level BPE with VOCABULARY entries, three special tokens and the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=SHAPE["max_position_embeddings"],
    )


def encode(tokenizer: Any, pairs: list[tuple[str, str]]) -> list[list[int]]:
    """Token ids of every conversation, the end-of-turn token last."""
    rows = []
    for prompt, answer in pairs:
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        text = tokenizer.apply_chat_template(chat, tokenize=False).rstrip("\n")
        rows.append(tokenizer(text, add_special_tokens=False)["input_ids"])
    return rows


def batches_of(rows: list[list[int]], tokens: int, generator: Any) -> list[list[list[int]]]:
    """Batches of rows of about the same length, each of about `tokens` tokens, in random order."""
    import torch

    noise = torch.rand(len(rows), generator=generator).tolist()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]) + 8 * noise[i])
    batches: list[list[list[int]]] = [[]]
    for i in order:
        if batches[-1] and (len(batches[-1]) + 1) * len(rows[i]) > tokens:
            batches.append([])
        batches[-1].append(rows[i])
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def loss_of(model: Any, batch: list[list[int]], pad: int) -> Any:
    """Mean cross-entropy (nats a token) over prompt and answer of a batch of rows."""
    import torch

    width = max(map(len, batch))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in batch])
    return model(input_ids=ids, attention_mask=(ids != pad).long(), labels=ids.masked_fill(ids == pad, -100)).loss


def train_model(tokenizer: Any, rows: list[list[int]], arguments: argparse.Namespace) -> Any:
    """Stage 3: AdamW, warm-up and cosine, float32; every 40th row is held out and its loss printed each epoch."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(arguments.seed)
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = LlamaConfig(
        vocab_size=len(tokenizer), tie_word_embeddings=True, initializer_range=0.04, **SHAPE, **special
    )
    model = LlamaForCausalLM(config).train()
    for layer in model.model.layers:  # Llama has no dropout on the residual stream, and the text is scarce
        for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
            module.register_forward_hook(
                lambda module, _, output: torch.dropout(output, arguments.dropout, module.training)
            )
    print(f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.2f} million weights", flush=True)
    held_out, kept = rows[::40], [row for i, row in enumerate(rows) if i % 40]
    generator = torch.Generator().manual_seed(arguments.seed)
    schedule = [batch for _ in range(arguments.epochs) for batch in batches_of(kept, arguments.batch_tokens, generator)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.1, betas=(0.9, 0.98))
    start, running = time.perf_counter(), 0.0
    every = max(1, len(schedule) // arguments.epochs)
    for step, batch in enumerate(schedule, 1):
        warm_up, progress = min(1.0, step / 100), step / len(schedule)
        optimizer.param_groups[0]["lr"] = arguments.learning_rate * warm_up * (0.05 + 0.95 * math.cos(progress * 1.57))
        loss = loss_of(model, batch, tokenizer.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        running += loss.item() / every
        if step % every == 0:
            model.eval()
            with torch.no_grad():
                batches = [held_out[i : i + 16] for i in range(0, len(held_out), 16)]
                held = [loss_of(model, batch, tokenizer.pad_token_id).item() for batch in batches]
            figures = f"loss {running:.3f}, held out {sum(held) / len(held):.3f}"
            print(f"step {step}/{len(schedule)}: {figures}, {time.perf_counter() - start:.0f} s", flush=True)
            running = 0.0
            model.train()
    return model.eval()


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Stage 4: config, generation config, weights in bfloat16, tokenizer. The card README.md is kept."""
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=0.7
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)  # the chat template goes into tokenizer_config.json
    (folder / "model.safetensors").chmod(0o644)


def show(folder: Path, prompts: list[str]) -> None:
    """Print answers of the saved model, read back the plain way."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    for prompt in prompts:
        chat = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**ids, max_new_tokens=96)[0, ids["input_ids"].shape[1] :]
        print(f"\n> {prompt}\n{tokenizer.decode(out)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--shown-temperature", type=float, default=0.7, help="behind the example turns")
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64, help="answers sampled at once")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many extra prompts")
    parser.add_argument("--sample-only", action="store_true", help="stop behind stage 1")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.answers = 1
    sample_all(extra_prompts()[: arguments.limit], EXTRA_RAW, arguments)
    if arguments.sample_only:
        return
    pairs = conversations()
    tokenizer = train_tokenizer([text for pair in pairs for text in pair])
    rows = encode(tokenizer, pairs)
    print(f"{len(pairs)} conversations, {sum(map(len, rows))} tokens", flush=True)
    save(train_model(tokenizer, rows, arguments), tokenizer, arguments.output)
    show(arguments.output, ["How do I keep bread fresh?", "Why is the sky blue?", "Suggest a name for a small cafe."])


if __name__ == "__main__":
    main()
