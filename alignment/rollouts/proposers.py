"""Ways to a better answer, as `improve` takes them: an improver, Self-Refine by prompting, sampling anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignment.data.example import Message
from alignment.data.improvement_prompts import ImprovementTemplate
from alignment.data.refine_prompts import RefineTemplate
from alignment.data.slot_templates import quoted
from alignment.data.templates import encode_prompt
from alignment.models.logps import causal_lm
from alignment.rollouts.improve import Proposal
from alignment.rollouts.sampler import Rollout, Sampler


@dataclass
class Asker:
    """Conversations -> sampled answers of one model."""

    sampler: Sampler
    tokenizer: Any
    template: str = "chat"  # as data.template
    longest: float = math.inf  # tokens of a prompt

    @property
    def greedy(self) -> bool:
        return self.sampler.settings.temperature == 0

    @cached_property
    def room(self) -> float:
        """The longest prompt, in tokens, that is asked: one that leaves room for max_new_tokens."""
        model = getattr(self.sampler, "model", None)
        config = None if model is None else causal_lm(model).config.get_text_config()
        window = getattr(config, "max_position_embeddings", None) or math.inf
        return min(self.longest, window - self.sampler.settings.max_new_tokens)

    def encode(self, conversation: list[Message]) -> tuple[int, ...]:
        return tuple(encode_prompt(self.tokenizer, conversation, self.template))

    def ask(self, conversations: Sequence[list[Message]], seed: int, anew: bool = False) -> list[Rollout | None]:
        """One answer to each conversation; None where it leaves no room for one, or has no tokens.

        The same conversation gets the same answer, or with `anew` another one each time it comes.
        """
        encoded = [self.encode(conversation) for conversation in conversations]
        fitting = [ids for ids in encoded if 0 < len(ids) <= self.room]
        if not anew:
            fitting = list(dict.fromkeys(fitting))
        answers = self.sampler.sample(fitting, seed=seed) if fitting else []
        if not anew:
            known = dict(zip(fitting, answers, strict=True))
            return [known.get(ids) for ids in encoded]
        waiting = iter(answers)
        return [next(waiting) if 0 < len(ids) <= self.room else None for ids in encoded]


@dataclass
class Improvement:
    """The improver M_PIT: given the prompt and an answer, it writes a better one.

    Args:
        limit: tokens of the answer that it is shown; a longer one loses its end.
    """

    asker: Asker
    template: ImprovementTemplate
    limit: int

    @property
    def greedy(self) -> bool:
        return self.asker.greedy

    def propose(
        self, prompts: Sequence[list[Message]], answers: Sequence[str], seed: int, anew: bool = False
    ) -> list[Proposal | None]:
        """As `Proposer` says. An empty answer asks the plain question."""
        shown = [self.template.quoted(answer, self.asker.tokenizer, self.limit) for answer in answers]
        asked = [self.template.to_improve(prompt, text) for prompt, (text, _) in zip(prompts, shown, strict=True)]
        found = self.asker.ask(asked, seed, anew)
        return [_proposal(rollout, was_cut) for rollout, (_, was_cut) in zip(found, shown, strict=True)]


@dataclass
class Resampling:
    """The policy M_P asked the plain question again, whatever the answer is."""

    asker: Asker
    template: ImprovementTemplate

    @property
    def greedy(self) -> bool:
        return self.asker.greedy

    def propose(
        self, prompts: Sequence[list[Message]], answers: Sequence[str], seed: int, anew: bool = False
    ) -> list[Proposal | None]:
        """As `Proposer` says; the seed alone tells one round from the next."""
        found = self.asker.ask([self.template.asked(prompt) for prompt in prompts], seed, anew)
        return [_proposal(rollout) for rollout in found]


@dataclass
class SelfRefine:
    """Self-Refine (2303.17651): the model is asked what is wrong with the answer, then for a better one.

    A critique that finds nothing to improve leaves the answer as it is, and says so.
    """

    asker: Asker
    template: RefineTemplate
    limit: int  # tokens of the answer that it is shown

    @property
    def greedy(self) -> bool:
        return self.asker.greedy

    def propose(
        self, prompts: Sequence[list[Message]], answers: Sequence[str], seed: int, anew: bool = False
    ) -> list[Proposal | None]:
        """As `Proposer` says; the tokens of the critique are counted with those of the answer."""
        shown = [quoted(answer, self.asker.tokenizer, self.limit, self.template.cut) for answer in answers]
        judged = [self.template.to_judge(prompt, text) for prompt, (text, _) in zip(prompts, shown, strict=True)]
        critiques = self.asker.ask(judged, seed, anew)
        going = [i for i, critique in enumerate(critiques) if critique and not self.template.is_done(critique.text)]
        refined = [self.template.to_refine(prompts[i], shown[i][0], _text(critiques[i])) for i in going]
        found = dict(zip(going, self.asker.ask(refined, seed + 1, anew), strict=True))
        proposals: list[Proposal | None] = [None] * len(prompts)
        for row, critique in enumerate(critiques):
            if critique is not None:
                proposals[row] = self._after(critique, found.get(row), answers[row], shown[row][1], row in found)
        return proposals

    def _after(
        self, critique: Rollout, rollout: Rollout | None, answer: str, was_cut: bool, asked: bool
    ) -> Proposal | None:
        """The proposal that one critique led to: None where it was `asked` for and there was no room."""
        if asked and rollout is None:
            return None
        drawn, read = len(critique.completion), len(critique.prompt)
        if rollout is None:
            return Proposal(answer, drawn, read, reference_cut=was_cut, critique=critique.text, satisfied=True)
        drawn, read = drawn + len(rollout.completion), read + len(rollout.prompt)
        return Proposal(rollout.text, drawn, read, rollout.finished, was_cut, critique.text, rollout=rollout)


def _text(rollout: Rollout | None) -> str:
    return "" if rollout is None else rollout.text


def _proposal(rollout: Rollout | None, reference_cut: bool = False) -> Proposal | None:
    if rollout is None:
        return None
    drawn, read = len(rollout.completion), len(rollout.prompt)
    return Proposal(rollout.text, drawn, read, rollout.finished, reference_cut, rollout=rollout)
