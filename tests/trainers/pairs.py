"""A few pairs of unequal lengths, for tests of the trainers."""

from __future__ import annotations

from alignment.data.views import Pair

_TEXTS = [
    ("Name a fruit.", "An apple.", "There are many fruits that one could name here, such as the apple."),
    ("How warm is tea?", "Hot, and then warm.", "It depends."),
    (
        "Say hello to my neighbour, who came by this morning with bread and a question.",
        "Hello!",
        "No, thank you, not today.",
    ),
    ("Why is the sky blue?", "Air scatters blue light more than red light.", "Because."),
    ("Count to three.", "One, two, three.", "Three, two, one, and then on to minus five."),
    ("What do cats eat?", "Meat, mostly.", "Cats eat and cats sleep and cats eat."),
]


def some_pairs(count: int = 6) -> list[Pair]:
    """`count` pairs; the same ones every time."""
    found = []
    for number in range(count):
        prompt, chosen, rejected = _TEXTS[number % len(_TEXTS)]
        again = "" if number < len(_TEXTS) else f" ({number})"
        found.append(
            Pair(
                id=f"pair-{number}",
                prompt=[{"role": "user", "content": prompt + again}],
                chosen=[{"role": "assistant", "content": chosen}],
                rejected=[{"role": "assistant", "content": rejected}],
            )
        )
    return found
