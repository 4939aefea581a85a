"""Trained reward and preference models as feedback: what `recipe=reward` and `recipe=preference_model` save.

Prompts and answers become token ids as in training, and go through the same prompt groups.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from alignment.batching.groups import Group, Unit
from alignment.batching.microbatch import cut_by_tokens, groups_of
from alignment.batching.packing import pack
from alignment.batching.units import BOTH_ORDERS, TokenCounts, encode_group, joined, separator
from alignment.config import DataConfig, ModelConfig
from alignment.data.example import Message
from alignment.errors import UserError
from alignment.feedback.adapters import sigmoid
from alignment.feedback.protocols import Context, Judge, Prompts, Reward
from alignment.models.layout_check import choose_layout
from alignment.models.loading import load_tokenizer
from alignment.models.reference import FrozenCopy
from alignment.models.reference_cache import fingerprint
from alignment.models.scores import antisymmetric, completion_scores, load_scorer

# The kind of a saved model -> the feedback that it is used as.
FEEDBACK = {"reward": "reward_model", "preference": "preference_model", "gap": "gap_reward"}


@dataclass
class Trained:
    """A scoring model from a folder or hub id.

    A prompt over `max_prompt_length` tokens gets no verdict; an answer is cut at `max_completion_length`.
    """

    path: str
    max_prompt_length: int = 2048
    max_completion_length: int = 2048
    token_budget: int = 4096
    dtype: str = "float32"
    counts: Counter[str] = field(default_factory=Counter, init=False)

    kind = "reward"

    def __post_init__(self) -> None:
        config = ModelConfig(path=self.path, dtype=self.dtype)
        model, self.card = load_scorer(config)
        if self.card.kind != self.kind:
            raise UserError(f"{self.path} is a {self.card.kind} model: use feedback={FEEDBACK[self.card.kind]}")
        self.tokenizer = load_tokenizer(config)
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.layout, _ = choose_layout(self.model, "shared")
        self.settings = DataConfig(
            template=self.card.template,
            max_prompt_length=self.max_prompt_length,
            max_completion_length=self.max_completion_length,
        )

    def identity(self) -> dict[str, Any]:
        """What its word depends on: the weights themselves, since a run folder may be written anew."""
        limits = {"prompt": self.max_prompt_length, "completion": self.max_completion_length}
        return {"weights": fingerprint(FrozenCopy(self.model), "no").hex(), **limits, **asdict(self.card)}

    def encode(self, prompt: list[Message], answers: Sequence[str], verdicts: int | None = None) -> Group | None:
        """The prompt with its answers as token ids; None where the prompt is too long, which is counted.

        `verdicts`: how many are not given then; as many as answers, where not said.
        """
        counts = TokenCounts("answers")
        turns = [[{"role": "assistant", "content": answer}] for answer in answers]
        group = encode_group("an answer", prompt, turns, self.tokenizer, self.settings, counts)
        self.counts["prompt too long"] += len(counts.prompt_too_long) * (verdicts or len(answers))
        return group

    @torch.no_grad()
    def scores(self, groups: Sequence[Group]) -> list[Tensor]:
        """The scores (completions, heads) of each group, on the CPU."""
        units = [Unit(str(number), (group,)) for number, group in enumerate(groups)]
        found: dict[str, Tensor] = {}
        for piece in cut_by_tokens(units, self.token_budget, self.layout):
            batch = pack(groups_of(piece), self.layout, self.tokenizer.pad_token_id).to(self.model.device)
            rows = completion_scores(self.model, batch).cpu().split([unit.completions for unit in piece])
            found |= {unit.id: scores for unit, scores in zip(piece, rows, strict=True)}
        return [found[unit.id] for unit in units]


def rows_by_prompt(prompts: Prompts) -> list[list[int]]:
    """The rows of each prompt, which share it in one group."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        found[json.dumps(prompt, sort_keys=True)].append(row)
    return list(found.values())


@dataclass
class RewardModel(Trained, Reward):
    """A scalar reward model; of several objectives the mean, or the sum with `weights`."""

    weights: list[float] | None = None

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "weighting": self.weighting.tolist()}

    def __post_init__(self) -> None:
        super().__post_init__()
        heads = self.card.heads
        if self.weights is not None and len(self.weights) != heads:
            raise UserError(f"feedback.weights: {len(self.weights)} given, {self.path} has {heads} scores")
        self.weighting = torch.tensor(self.weights or [1.0 / heads] * heads)

    def score(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> list[float]:
        """The reward of each completion; answers to one prompt share it."""
        return [math.nan if row is None else float(row @ self.weighting) for row in self._rows(prompts, completions)]

    def parts(self, prompts: Prompts, completions: Sequence[str], context: Context = None) -> dict[str, list[float]]:
        """Each objective's weighted score; one of the name `reward` where there is one."""
        names = self.card.objectives or ("reward",)
        rows = [
            torch.full((len(names),), math.nan) if row is None else row * self.weighting
            for row in self._rows(prompts, completions)
        ]
        return {name: [float(row[place]) for row in rows] for place, name in enumerate(names)}

    def _rows(self, prompts: Prompts, completions: Sequence[str]) -> list[Tensor | None]:
        """The scores (heads,) of each completion."""
        members = rows_by_prompt(prompts)
        groups = [self.encode(prompts[rows[0]], [completions[row] for row in rows]) for rows in members]
        known = [(rows, group) for rows, group in zip(members, groups, strict=True) if group is not None]
        found: list[Tensor | None] = [None] * len(completions)
        for (rows, _), scores in zip(known, self.scores([group for _, group in known]), strict=True):
            for row, values in zip(rows, scores, strict=True):
                found[row] = values
        return found


@dataclass
class PreferenceModel(Trained, Judge):
    """A preference model: P(first ≻ second) from both answers in one context, exactly antisymmetric."""

    kind = "preference"

    def prefer(
        self, prompts: Prompts, first: Sequence[str], second: Sequence[str], context: Context = None
    ) -> list[float]:
        """P(first ≻ second), each pair in both orders. P(a ≻ b) + P(b ≻ a) = 1 to the bit: b is asked as 1 - a."""
        between = separator(self.tokenizer)
        asked: list[tuple[int, bool, Group]] = []
        found = [0.5 if a == b else math.nan for a, b in zip(first, second, strict=True)]
        for row, (prompt, pair) in enumerate(zip(prompts, zip(first, second, strict=True), strict=True)):
            if pair[0] != pair[1] and (group := self.encode(prompt, sorted(pair))) is not None:
                asked.append((row, pair[0] > pair[1], joined(group, between, BOTH_ORDERS)))
        scores = self.scores([group for _, _, group in asked])
        for (row, swapped, _), pair_scores in zip(asked, scores, strict=True):
            p = sigmoid(float(antisymmetric(pair_scores)))
            found[row] = 1.0 - p if swapped else p
        return found
