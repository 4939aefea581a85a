"""Is an exported model the one that was trained? Both give log-probs to the same answers, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignment.batching.groups import Group
from alignment.batching.packing import pack
from alignment.data.templates import encode_answers
from alignment.errors import UserError
from alignment.evaluation.row import section
from alignment.evaluation.summary import read_config, read_samples
from alignment.models.layout_check import probe
from alignment.models.logps import attach, token_logps
from alignment.models.scores import completion_scores, is_scorer

# Nats: the largest mean over an answer of its tokens' distances, by what the weights were rounded to. Of SmolLM2-135M
# 5e-6 was seen in float32, 0.002 in float16, 0.018 in bfloat16, 0.07 in q8_0, and 0.29 in Q4_1, as its file holds it.
# Of a scoring model: units of the score.
TOLERANCES = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1, "q8_0": 0.2, "as it was": 1.0}
ROWS = 16  # of samples.jsonl
LONGEST = 256  # tokens of a prompt, and of an answer
GROUPS = 4  # of one forward pass


@dataclass(frozen=True)
class Distance:
    """Of two models, on the same answers."""

    mean: float  # the largest over answers of the mean over their tokens, nats (or the largest, in units of the score)
    largest: float  # of a single token
    answers: int
    of: str  # what the answers are

    def __str__(self) -> str:
        return (
            f"{self.answers} {self.of}: off by at most {self.mean:.2g} nats a token in the mean of an answer, "
            f"{self.largest:.2g} at one token"
        )


def held_out_answers(run: Path, tokenizer: Any, model: Any) -> tuple[list[Group], str]:
    """(prompts that the run held out with its answers to them, before and after training; what they are).

    Random tokens where the run took no samples, or `run` is a model alone.
    """
    groups: list[Group] = []
    template = str(section(read_config(run), "data").get("template", "chat"))
    for row in read_samples(run)[:ROWS]:
        prompt, answers = row.get("prompt"), [row.get(side) for side in ("before", "after")]
        texts = [answer for answer in answers if isinstance(answer, str) and answer]
        if not isinstance(prompt, str) or not texts:
            continue
        try:
            completions = [_message("assistant", text) for text in texts]
            ids, found = encode_answers(tokenizer, _message("user", prompt), completions, template)
        except UserError:
            continue  # a template that takes no such conversation
        known = [[token for token in each[:LONGEST] if token is not None] for each in found]  # no end-of-turn token
        if ids and all(known):
            groups.append(Group(tuple(ids[-LONGEST:]), tuple(map(tuple, known))))
    return (groups, "held-out answers") if groups else (probe(model), "answers of random tokens")


def _message(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


@torch.no_grad()
def values(model: Any, groups: Sequence[Group]) -> list[torch.Tensor]:
    """The log-probs of each completion's tokens, float32, in order; of a scoring model each one's scores."""
    device = next(model.parameters()).device
    attach(model.eval())
    found: list[torch.Tensor] = []
    for start in range(0, len(groups), GROUPS):
        batch = pack(groups[start : start + GROUPS], "padded").to(device)
        if is_scorer(model):
            found += completion_scores(model, batch).cpu().unbind()
        else:
            logps, counts = token_logps(model, batch), torch.bincount(batch.owners, minlength=batch.completions)
            found += logps.cpu().split(counts.tolist())
    return found


def refuse_other(
    expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], of: str, allowed: float, what: str = "merged model"
) -> str:
    """One line about how far the `found` values are from the `expected` ones.

    Raises:
        UserError: further than `allowed`: what was written is not what was trained.
    """
    distance = compare(expected, found, of)
    line = f"{what} against base and adapter, {distance} (allowed: {allowed:g})"
    if not distance.mean <= allowed:
        raise UserError(f"what was written is not the model that was trained: {line}\nNothing was kept")
    return line


def compare(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor], of: str) -> Distance:
    gaps = [(a - b).abs() for a, b in zip(expected, found, strict=True)]
    return Distance(max(float(gap.mean()) for gap in gaps), max(float(gap.max()) for gap in gaps), len(gaps), of)
