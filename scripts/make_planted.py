"""Make the built-in data set `planted`: answers with exactly one wrong place, and a judgment that names it.

    python scripts/make_planted.py

Every prompt can be answered from itself: small sums, questions on a short text, how-tos with the instructions given.
The wordings are in planted.yaml, with the places of each answer where an error can be put: another number, another
name (or town, day, colour, …), or the opposite wording ("may" for "may not"). One of them is chosen; the judgment says
what stands there and what is the case. A fifth of the answers are right, and judged satisfactory. The same seed gives
the same files on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORDINGS = ROOT / "scripts" / "planted.yaml"
OUTPUT = ROOT / "alignment" / "data" / "builtin_sets" / "planted"
KINDS = ("arithmetic", "facts", "how-to", "arithmetic", "facts")  # in turn
SATISFACTORY = 0.2  # of the answers
PRAISED = 0.5  # of the satisfactory ones; the others have no judgment text
_PLACE = re.compile(r"<(?P<key>\w+)(?:~(?P<other>\w+)|:(?P<right>[^|>]+)\|(?P<wrong>[^>]+))?>")


@dataclass(frozen=True)
class Task:
    """A prompt with its right answer, in which `places` can be made wrong."""

    kind: str
    prompt: str
    source: str | None  # what the prompt quotes: "the text"; none for sums
    parts: list[str]  # the answer without its places: one more than there are places
    places: list[dict[str, str]]  # right, wrong, truth, error: "number", "name" or "negation"


def fill(lists: dict[str, list[str]], template: dict[str, Any], texts: list[str], rng: random.Random) -> dict[str, str]:
    """A value for every slot of the texts: numbers, what is computed from them, and distinct values of the lists."""
    found: dict[str, Any] = {}
    for name, span in template.get("numbers", {}).items():
        low, high = span.split("-")
        found[name] = rng.randint(int(low), int(high))
    for name, formula in template.get("let", {}).items():
        found[name] = eval(formula, {"__builtins__": {}}, found)  # a sum in our own file
    for slot in dict.fromkeys(re.findall(r"[{<~](\w+)[}>~]", " ".join(texts))):
        if slot not in found and list_of(slot) in lists:
            taken = {value for other, value in found.items() if list_of(other) == list_of(slot)}
            found[slot] = rng.choice([value for value in lists[list_of(slot)] if value not in taken])
    return {name: str(value) for name, value in found.items()}


def wrong_number(right: int, said: set[str], rng: random.Random) -> str:
    """A number near the right one: small ones stay from 2 to 12, others may differ by ten or swap two digits."""
    if right <= 12:
        near = [number for number in range(right - 3, right + 4) if 2 <= number <= 12]
    else:
        swapped = int("".join(reversed(str(right)[-2:])))
        near = [right - 10, right - 2, right - 1, right + 1, right + 2, right + 10, right - right % 100 + swapped]
    possible = [number for number in dict.fromkeys(near) if number > right // 3 and str(number) not in said]
    return str(rng.choice(possible))


def wrong_value(
    slot: str, found: dict[str, str], lists: dict[str, list[str]], said: set[str], rng: random.Random
) -> str:
    """Another value of the slot's list; every second time one that is in the text too, if there is one."""
    near = [value for other, value in found.items() if list_of(other) == list_of(slot) and value not in said]
    far = [value for value in lists[list_of(slot)] if value not in said]
    return rng.choice(near if near and rng.random() < 0.5 else far)


def list_of(slot: str) -> str:
    """name2 is filled from the list name."""
    return slot.rstrip("0123456789")


def make_task(kind: str, wordings: dict[str, Any], template: dict[str, Any], ask: int, rng: random.Random) -> Task:
    """The template's `ask`-th question, with its slots filled."""
    if kind == "arithmetic":
        text, question, answer = "", template["ask"], template["answer"]
    else:
        text, (question, answer) = template["text"], template["asks"][ask]
    lists = wordings["values"] | template.get("values", {})
    found = fill(lists, template, [text, question, answer], rng)
    # What the right answer says: a wrong value is none of these, so that it stands in the answer once.
    said = {found[slot] for slot in re.findall(r"[{<](\w+)[}>~]", answer)}
    parts, places, end = [], [], 0
    for place in _PLACE.finditer(answer):
        parts.append(answer[end : place.start()].format(**found))
        truth = template["truths"][place["key"]].format(**found)
        places.append({"truth": truth, **two_wordings(place, found, lists, said, rng)})
        end = place.end()
    prompt = question.format(**found)
    if text:
        frame = rng.choice(wordings["frames"])
        prompt = frame.format(text=text.format(**found), question=prompt, source=template["source"])
    return Task(kind, prompt, template.get("source"), [*parts, answer[end:].format(**found)], places)


def two_wordings(
    place: re.Match[str], found: dict[str, str], lists: dict[str, list[str]], said: set[str], rng: random.Random
) -> dict[str, str]:
    """What belongs at a place, what to put there instead, and which kind of error that is."""
    key = place["key"]
    if place["right"]:
        return {"right": place["right"], "wrong": place["wrong"], "error": "negation"}
    if place["other"]:
        return {"right": found[key], "wrong": found[place["other"]], "error": "name"}
    if list_of(key) in lists:
        return {"right": found[key], "wrong": wrong_value(key, found, lists, said, rng), "error": "name"}
    return {"right": found[key], "wrong": wrong_number(int(found[key]), said, rng), "error": "number"}


def answer_of(task: Task, wrong: int | None = None) -> tuple[str, tuple[int, int]]:
    """The answer, its `wrong`-th place made wrong, and where that place begins and ends in it."""
    text, span = task.parts[0], (0, 0)
    for number, (place, after) in enumerate(zip(task.places, task.parts[1:], strict=True)):
        said = place["wrong"] if number == wrong else place["right"]
        if number == wrong:
            span = (len(text), len(text) + len(said))
        text += said + after
    return text, span


def judgment_of(task: Task, place: dict[str, str], wordings: dict[str, list[str]], rng: random.Random) -> str:
    """What is wrong at the place, and what is the case."""
    truth = place["truth"]
    if task.source:
        truth = rng.choice(wordings["said"]).format(source=task.source, truth=truth)
    wording = rng.choice(wordings["wording" if place["error"] == "negation" else "value"])
    text = wording.format(**{**place, "truth": truth, "Truth": truth[0].upper() + truth[1:]})
    return text[0].upper() + text[1:]


def record(task: Task, satisfactory: bool, wordings: dict[str, list[str]], rng: random.Random) -> dict[str, Any]:
    """The example record of one task."""
    meta: dict[str, Any] = {"kind": task.kind}
    if satisfactory:
        text = answer_of(task)[0]
        judgment = rng.choice(wordings["praise"]) if rng.random() < PRAISED else None
    else:
        chosen = rng.randrange(len(task.places))
        place = task.places[chosen]
        text, span = answer_of(task, chosen)
        meta |= {"error": place["error"], "wrong": list(span), "right": answer_of(task)[0]}
        judgment = judgment_of(task, place, wordings, rng)
    response = {
        "messages": [{"role": "assistant", "content": text}],
        "judgments": [{"text": judgment, "satisfactory": satisfactory}],
    }
    return {"prompt": [{"role": "user", "content": task.prompt}], "responses": [response], "meta": meta}


def tasks(wordings: dict[str, Any], rng: random.Random) -> Iterator[Task]:
    """Endless tasks with distinct prompts: the kinds in turn, and of each kind every question once before the next."""
    decks: dict[str, list[tuple[dict[str, Any], int]]] = {kind: [] for kind in KINDS}
    seen = set()
    while True:
        for kind in KINDS:
            if not decks[kind]:
                decks[kind] = [(item, ask) for item in wordings[kind] for ask in range(len(item.get("asks", [0])))]
                rng.shuffle(decks[kind])
            task = make_task(kind, wordings, *decks[kind].pop(), rng)
            if task.prompt not in seen:
                seen.add(task.prompt)
                yield task


def make(train: int, test: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """The records of both splits, in random order."""
    wordings = yaml.safe_load(WORDINGS.read_text(encoding="utf-8"))
    rng = random.Random(seed)
    flags = [index < round(SATISFACTORY * size) for size in (train, test) for index in range(size)]
    order = [*rng.sample(range(train), train), *(train + at for at in rng.sample(range(test), test))]
    made = tasks(wordings, rng)
    found = [record(next(made), flags[at], wordings["judgments"], rng) for at in order]
    return {"train": found[:train], "test": found[train:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=340)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split, found in make(arguments.train, arguments.test, arguments.seed).items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
        (arguments.output / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{split}: {len(found)} examples")


if __name__ == "__main__":
    main()
