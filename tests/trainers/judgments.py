"""A few judged answers of unequal lengths, for tests of the trainers."""

from __future__ import annotations

from alignment.data.views import Judged

_TEXTS = [
    ("What is 3 + 9?", "It is 14.", "The answer says 14, but 3 + 9 is 12.", {"wrong": [6, 8], "right": "It is 12."}),
    ("Name a fruit.", "An apple.", None, {}),
    ("What do cats eat, and when do they sleep?", "Bricks.", "Cats do not eat bricks. The sleep is missing.", {}),
    ("Say hello to my neighbour.", "Hello, neighbour! How are you this morning?", "Good and polite.", {}),
    ("Count to three.", "One, three, four.", "Two is missing, and four is one too many.", {}),
    ("How warm is tea?", "Hot, and then warm, and then cold.", None, {}),
]


def some_judgments(count: int = 6) -> list[Judged]:
    """`count` answers, three of six unsatisfactory; the same ones every time."""
    found = []
    for number in range(count):
        prompt, answer, judgment, meta = _TEXTS[number % len(_TEXTS)]
        again = "" if number < len(_TEXTS) else f" ({number})"
        found.append(
            Judged(
                f"answer-{number}",
                [{"role": "user", "content": prompt + again}],
                [{"role": "assistant", "content": answer}],
                judgment,
                satisfactory=judgment is None or judgment.startswith("Good"),
                meta=dict(meta),
            )
        )
    return found
