"""A program for `accelerate launch`: the same feedback over the processes of the launch; rank 0 writes what it got."""

from __future__ import annotations

import json
import sys

from accelerate import PartialState

from alignment.errors import UserError
from alignment.feedback.adapters import MeanWin
from alignment.feedback.build import build_feedback
from alignment.feedback.overlap import ExactMatch
from alignment.feedback.ranks import OverRanks, over_ranks
from tests.feedback.toys import Says, Writes

PAIRS = [(f"{n} " + "long " * (n % 5), f"{n} " + "short " * (n % 3)) for n in range(23)]
PROMPTS = [[{"role": "user", "content": f"prompt {n // 4}"}] for n in range(23)]


def vowels(prompt: list, completion: str, context: dict) -> float:
    """A function of one's own, which sees its row's context."""
    return sum(completion.count(vowel) for vowel in "aeiou") + context["row"] / 100


def found() -> dict:
    """What each kind says of the rows, over all processes."""
    first, second = [a for a, _ in PAIRS], [b for _, b in PAIRS]
    context = [{"row": row} for row in range(23)]
    noisy = over_ranks(build_feedback({"name": "noise", "of": "length", "rate": 0.3}))
    total = over_ranks(build_feedback({"name": "sum", "of": ["length", "repetition"], "weights": [1, 2]}))
    pieces = OverRanks(build_feedback("tests.feedback.over_two:vowels"), rows_at_once=3)  # several exchanges
    wins = over_ranks(MeanWin(build_feedback({"name": "noise", "of": "length"})))
    return {
        "rule": over_ranks(build_feedback("length")).score(PROMPTS, first),
        "noise": noisy.prefer(PROMPTS, first, second),
        "counts": noisy.counts,
        "function": over_ranks(build_feedback("tests.feedback.over_two:vowels")).score(PROMPTS, first, context),
        "pieces": pieces.score(PROMPTS, first, context),
        "sum": total.score(PROMPTS, first),
        "parts": total.parts(PROMPTS, first),
        "wins": wins.score(PROMPTS, first),
        "critic": [vars(one) for one in over_ranks(Writes()).review(PROMPTS, ["please", *first[1:]])],
        "one row": over_ranks(build_feedback("length")).score(PROMPTS[:1], first[:1]),
        "none": over_ranks(Says({})).score([], []),
    }


def errors() -> list[str]:
    """What an error in one row, and so on one process, says on this process."""
    said = []
    with_reference = [{"reference": "x"}] * 22 + [{}]
    texts = [a for a, _ in PAIRS]
    for feedback, context in ((ExactMatch(), with_reference), (Fails(), None)):
        try:
            over_ranks(feedback).score(PROMPTS, texts, context)
        except (UserError, RuntimeError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


class Fails:
    """Fails on one row."""

    def score(self, prompts: list, completions: list[str], context: object = None) -> list[float]:
        if any(text.startswith("3 ") for text in completions):
            raise ValueError("row three")
        return [0.0] * len(completions)


if __name__ == "__main__":
    state = PartialState(cpu=True)
    result = {**found(), "errors": errors()}
    with open(f"{sys.argv[1]}.{state.process_index}", "w") as file:
        json.dump(result, file)
    state.wait_for_everyone()  # a process that ends while the other still talks takes it down
    state.destroy_process_group()
