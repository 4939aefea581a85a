"""Answers in, improved answers out, from Python: `Improver(model, gap)(prompts, answers)`; and as a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from alignment.config import ModelConfig, PITConfig
from alignment.data.example import Message
from alignment.data.improvement_prompts import load_improvement_template
from alignment.data.refine_prompts import load_refine_template
from alignment.data.templates import check_tokenizer
from alignment.errors import UserError, unknown
from alignment.feedback.gap import as_gap
from alignment.feedback.named import feedback_named
from alignment.feedback.protocols import Gap
from alignment.feedback.trained import PreferenceModel
from alignment.models.adapters import load_beside
from alignment.models.loading import config_of_run, load_tokenizer, resolve
from alignment.models.precision import AUTO, settled_dtype
from alignment.rollouts.improve import Improved, Proposer, check_rule, improve
from alignment.rollouts.proposers import Asker, Improvement, Resampling, SelfRefine
from alignment.rollouts.sampler import PolicySampler, Rollout, Sampler
from alignment.rollouts.sampling import SamplingSettings

# improver: the model is given an answer to improve (PIT). self_refine: it judges the answer, then writes it anew.
# resample: it answers anew, whatever the answer is.
WAYS = ("improver", "self_refine", "resample")


@dataclass(frozen=True)
class Improving:
    """How answers are improved. None: as the run was trained that made the improver, else as the comment says."""

    way: str = "improver"  # of WAYS
    rounds: int = 3  # at most
    rule: str | None = None  # stop | best | last, as in improve.py; None: stop with a gap, else last
    max_new_tokens: int = 256
    temperature: float = 0.4  # 0: greedy
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 32  # answers made at once
    max_prompt_length: int = 2048  # tokens of all that is asked; a row that needs more stays as it is
    max_reference_length: int | None = None  # tokens of the answer that the improver is shown; None: 256
    template: str | None = None  # chat | raw, as data.template; None: chat
    # chat | alpaca | a YAML file, as pit.template, and for self_refine; None: chat, with template=raw alpaca
    improvement_template: str | None = None
    refine_template: str | None = None
    dtype: str = AUTO  # of the weights; what auto is here stands in its place

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        if self.way not in WAYS:
            raise unknown("way to improve", self.way, WAYS)
        for name in ("rounds", "max_prompt_length", "max_reference_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        self.sampling()  # refuses the rest

    def sampling(self) -> SamplingSettings:
        return SamplingSettings(self.max_new_tokens, self.temperature, self.top_p, batch_size=self.batch_size)

    def as_trained(self, improver: str | None) -> Improving:
        """These settings, with None replaced by what the run that made `improver` had."""
        run = config_of_run(Path(resolve(improver))) if improver else {}
        pit, data = run.get("pit") or {}, run.get("data") or {}
        template = self.template or data.get("template", "chat")
        plain = "alpaca" if template == "raw" else "chat"
        trained = pit.get("template") if str(run.get("method")).startswith("pit") else None  # others never read it
        length = pit.get("max_reference_length", PITConfig.max_reference_length)
        return replace(
            self,
            max_reference_length=self.max_reference_length or length,
            template=template,
            improvement_template=self.improvement_template or trained or plain,
            refine_template=self.refine_template or plain,
        )


class Improver:
    """A model that is given a prompt and an answer and writes a better one, round after round.

    Weights are loaded when they are first needed.

    Args:
        model: the improver: a built-in's name, folder, run folder, hub id or .gguf file; or a loaded model.
        gap: what says whether an answer got better: a run of recipe=pit_gap or recipe=reward, the name of feedback
            that scores, or an object (`Gap`, `Reward`). None: nothing stops the rounds, and the last answer is kept.
        policy: the model that answers first, where there are no answers; as `model`.
        tokenizer: of a loaded model.
        adapter: a LoRA adapter, or the run that made it, on the improver.
        settings: the fields of `Improving`.

    Raises:
        UserError: no such model, gap or template, or a setting outside its range.
    """

    def __init__(
        self,
        model: Any,
        gap: Any = None,
        *,
        policy: Any = None,
        tokenizer: Any = None,
        adapter: str | None = None,
        settings: Improving | None = None,
        **changes: Any,
    ) -> None:
        unknown_names = set(changes) - set(Improving.__dataclass_fields__)
        if unknown_names:
            raise UserError(f"Improver has no setting {', '.join(sorted(unknown_names))}; it has those of Improving")
        settings = replace(settings or Improving(), **changes)
        named = adapter or (str(model) if isinstance(model, (str, Path)) else None)
        self.settings = settings.as_trained(named)
        self.template = load_improvement_template(str(self.settings.improvement_template), "improvement_template")
        self.refine_template = load_refine_template(str(self.settings.refine_template), "refine_template")
        self.gap: Gap | None = as_given_gap(gap)
        self.rule = check_rule(self.settings.rule, gap is not None)
        self.model = _Model(model, tokenizer, adapter, self.settings)
        self.policy = None if policy is None else _Model(policy, self.model.tokenizer, None, self.settings)

    @cached_property
    def proposer(self) -> Proposer:
        """What makes the proposals: loads the model."""
        asker, limit = self.model.asker, self.settings.max_reference_length
        assert limit is not None
        if self.settings.way == "self_refine":
            return SelfRefine(asker, self.refine_template, limit)
        if self.settings.way == "resample":
            return Resampling(asker, self.template)
        return Improvement(asker, self.template, limit)

    def __call__(self, prompts: Sequence[str | list[Message]], answers: Sequence[str] | None = None) -> list[Improved]:
        """Each answer with its rounds; `.text` is the one to use.

        Args:
            prompts: messages, or a text, which is one user turn.
            answers: one a prompt; an empty one asks the improver the plain question. None: the policy answers first.

        Raises:
            UserError: not as many answers as prompts, or none and no policy.
        """
        if isinstance(prompts, str) or isinstance(answers, str):
            raise UserError("the improver takes a list of prompts and a list of answers: [prompt], [answer]")
        given = [[{"role": "user", "content": it}] if isinstance(it, str) else it for it in prompts]
        if answers is None:
            answers = [rollout.text if rollout else "" for rollout in self.first_answers(given)]
        if len(answers) != len(given):
            raise UserError(f"{len(given)} prompts and {len(answers)} answers: one answer a prompt is needed")
        return self.improve(given, answers)

    def first_answers(self, prompts: Sequence[list[Message]]) -> list[Rollout | None]:
        """The policy's answer to each prompt, None where it is too long."""
        if self.policy is None:
            raise UserError("no answers to improve, and no policy to answer first: give answers, or policy=MODEL")
        asked = [self.template.asked(prompt) for prompt in prompts]
        return self.policy.asker.ask(asked, self.settings.seed)

    def improve(
        self, prompts: Sequence[list[Message]], answers: Sequence[str], *, seed: int | None = None, anew: bool = False
    ) -> list[Improved]:
        """`improve` of improve.py with this improver, gap and settings; `seed` in place of the settings' own."""
        settings = self.settings
        return improve(
            prompts,
            answers,
            self.proposer,
            self.gap,
            rounds=settings.rounds,
            rule=self.rule,
            seed=settings.seed if seed is None else seed,
            anew=anew,
        )


class _Model:
    """A model and its tokenizer: the tokenizer at once, the weights with the first question."""

    def __init__(self, model: Any, tokenizer: Any, adapter: str | None, settings: Improving) -> None:
        """`tokenizer`: of a model that is loaded already; a named one has its own."""
        self.model, self.adapter, self.settings = model, adapter, settings
        if isinstance(model, (str, Path)):
            self.name: str | None = str(model)
            tokenizer = load_tokenizer(ModelConfig(path=self.name))
        else:
            self.name = None
            if tokenizer is None:
                raise UserError("a loaded model needs its tokenizer: tokenizer=…")
        self.tokenizer = tokenizer
        check_tokenizer(tokenizer, settings.template or "chat")

    @cached_property
    def asker(self) -> Asker:
        model = self.model
        if self.name is not None:
            model = load_beside(ModelConfig(path=self.name, dtype=self.settings.dtype), self.adapter)
            model = model.to("cuda") if torch.cuda.is_available() else model
        sampler = PolicySampler(model, self.tokenizer, self.settings.sampling())
        template, longest = self.settings.template or "chat", self.settings.max_prompt_length
        return Asker(sampler, self.tokenizer, template, longest)


def as_given_gap(gap: Any) -> Gap | None:
    """`gap` as `Improver` takes it: None, a name or folder, or an object.

    Raises:
        UserError: nothing of that name, a preference model, or an object that neither compares nor scores.
    """
    if gap is None or isinstance(gap, Gap):
        return gap
    feedback = feedback_named(str(gap)) if isinstance(gap, (str, Path)) else gap
    if isinstance(feedback, PreferenceModel):
        raise UserError(f"{gap} is a preference model: the gap is that of a run of recipe=pit_gap or recipe=reward")
    return as_gap(feedback)


class ImprovingSampler:
    """A sampler whose completions went through an improver: the policy answers, and its answers are improved.

    A completion that was improved is the improver's token ids, and `logps` are the improver's: what learns from it must
    score it anew, and is off-policy.

    Args:
        policy: samples the first answers.
        improver: of the same vocabulary.
        prompts: all prompts that may be asked for; a sampler is given token ids, and an improver needs the text.

    Raises:
        UserError: other vocabularies.
    """

    def __init__(self, policy: Sampler, improver: Improver, prompts: Sequence[list[Message]]) -> None:
        self.policy, self.improver, self.settings = policy, improver, policy.settings
        tokenizer = getattr(policy, "tokenizer", improver.model.tokenizer)
        if tokenizer.get_vocab() != improver.model.tokenizer.get_vocab():
            raise UserError("the policy and the improver have other vocabularies: they share no tokens")
        asker = Asker(policy, tokenizer, improver.settings.template or "chat")
        self.messages = {asker.encode(prompt): prompt for prompt in prompts}

    def sample(self, prompts: Sequence[Sequence[int]], k: int = 1, seed: int = 0) -> list[Rollout]:
        """k rollouts of each prompt (token ids), as `Sampler` says. UserError: a prompt that was not given at first."""
        unknown_prompts = [prompt for prompt in prompts if tuple(prompt) not in self.messages]
        if unknown_prompts:
            raise UserError(f"{len(unknown_prompts)} prompts are not among those that the ImprovingSampler was given")
        first = self.policy.sample(prompts, k, seed)
        asked = [self.messages[tuple(rollout.prompt)] for rollout in first]
        found = self.improver.improve(asked, [rollout.text for rollout in first], seed=seed, anew=True)
        rollouts = []
        for rollout, improved in zip(first, found, strict=True):
            better = None if improved.kept is None else improved.rounds[improved.kept].proposal.rollout
            rollouts.append(rollout if better is None else replace(better, prompt=rollout.prompt))
        return rollouts

    def update(self, policy: Any) -> None:
        """The policy moved; the improver stays."""
        self.policy.update(policy)
