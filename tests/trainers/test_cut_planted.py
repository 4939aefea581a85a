"""CUT on known errors: a model that makes them, and knows what judgments are about, unlearns them and little else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.batching.judged import answer_text, span_of_tokens
from alignment.config import EvaluationConfig, ModelConfig, PeftConfig, RunConfig, TrainingConfig
from alignment.data.views import Judged
from alignment.evaluation.judged import JudgedEndOfRun
from alignment.trainers.cut import CUTTrainer
from alignment.trainers.judged_detection import detect

COLOURS = ("red", "blue", "green", "black", "white", "brown")
THINGS = ("hat", "door", "car", "box", "cup", "bag", "shoe", "boat")


def answer(thing: str, colour: str, said: str) -> Judged:
    """What colour a thing is, as the prompt has it; where another one is said, the judgment names it."""
    text = f"The colour is {said}."
    start = text.index(said)
    meta = {"wrong": [start, start + len(said)], "right": f"The colour is {colour}."} if said != colour else {}
    return Judged(
        f"{thing}-{colour}-{said}",
        [{"role": "user", "content": f"My {thing} is {colour}. What is its colour?"}],
        [{"role": "assistant", "content": text}],
        f"{said} is wrong." if meta else None,
        satisfactory=not meta,
        meta=meta,
    )


def answers(things: tuple[str, ...]) -> list[Judged]:
    """Right and wrong ones, half each."""
    found = []
    for number, thing in enumerate(things):
        for place, colour in enumerate(COLOURS):
            other = COLOURS[(place + 1 + number % 5) % len(COLOURS)]
            found += [answer(thing, colour, colour), answer(thing, colour, other)]
    return found


def trained(records: list[Judged], folder: Path, model: str, steps: int, rate: float, **loss: Any) -> CUTTrainer:
    config = RunConfig(
        method="cut",
        model=ModelConfig(path=model, dtype="float32"),
        peft=PeftConfig(method="none"),
        training=TrainingConfig(learning_rate=rate, batch_size=16, max_steps=steps, bf16=False, warmup_ratio=0.1),
        evaluation=EvaluationConfig(prompts=4, max_new_tokens=4),
        loss=loss,
    )
    return CUTTrainer(config=config, train=records, eval=answers(THINGS[-2:]), folder=folder)


@pytest.mark.slow
def test_planted_errors_are_detected_and_unlearnt_and_right_answers_are_not(tmp_path: Path) -> None:
    seen = answers(THINGS[:-2])
    # A model that says the wrong colour as readily as the right one, and that fits a judgment where it is given one.
    careless = [
        Judged(f"{record.id} again", record.prompt, record.completion, None, True)
        for record in seen
        if not record.satisfactory
    ]
    start = trained([*seen, *careless], tmp_path / "start", "tiny", 120, 2e-3, name="hindsight")
    start.train()
    start.save_policy(tmp_path / "model")

    held_out = [record for record in answers(THINGS[-2:]) if not record.satisfactory]
    caught, hits, inside = 0, 0, 0
    for found in detect(start.model, start.tokenizer, held_out, start.config):
        span = span_of_tokens(start.tokenizer, found.ids, answer_text(found.record), *found.record.meta["wrong"])
        assert span is not None
        tokens = found.tokens(1.5)
        caught += any(tokens[slice(*span)])  # the last token of a word may follow from its first
        hits += sum(tokens)
        inside += sum(tokens[slice(*span)])
    assert caught >= 0.9 * len(held_out) and inside >= 0.8 * hits

    bad = [record for record in seen if not record.satisfactory]

    def changes(records: list[Judged], **loss: Any) -> dict[str, Any]:
        run = trained(records, tmp_path / f"{loss['name']} {len(records)}", str(tmp_path / "model"), 20, 2e-4, **loss)
        end = JudgedEndOfRun(run, run.data.prompts)
        before = end.ask()
        run.train()
        return end.table(before, end.ask())["judged"]

    both = changes(seen, name="cut", margin=1.5, weight=1.0)
    assert both["wrong"]["ci95"][1] < -0.5 and both["right"]["ci95"][0] > 0
    # From the bad answers alone: no right one shows what belongs in the place of an error.
    cut, hindsight = changes(bad, name="cut", margin=1.5, weight=1.0), changes(bad, name="hindsight")
    assert cut["wrong"]["ci95"][1] < -0.5 and cut["right"]["difference"] > cut["wrong"]["difference"] / 5
    assert cut["wrong"]["difference"] < hindsight["wrong"]["difference"] - 0.5
