"""The end-of-run table: what the model answered to held-out prompts before training and after, and how far it moved.

Every number is a mean over held-out prompts that both models answered, so differences are paired.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.groups import Group, Unit
from alignment.batching.packing import Batch
from alignment.batching.stored import digests
from alignment.batching.units import prompt_ids
from alignment.errors import UserError
from alignment.evaluation.files import write_atomically
from alignment.evaluation.statistics import mean_and_se, paired_difference
from alignment.feedback.adapters import as_reward, inside, label
from alignment.feedback.build import build_feedback
from alignment.feedback.protocols import Judge
from alignment.feedback.ranks import over_ranks
from alignment.models.logps import sum_by_completion, token_logps
from alignment.models.reference import reference_sums
from alignment.rollouts.sample import Answer
from alignment.trainers.map_units import Value, sampled_answers, score_units


@dataclass
class Answers:
    """What one policy answered: B prompts, one answer each, and the answers' log-probs under the reference."""

    answers: list[Answer]
    reference_logps: list[float]  # (B,) summed, nats, temperature 1
    imitation: list[float] = field(default_factory=list)  # nats per token of each held-out answer, where imitated
    question: str = ""  # what was asked, and how: answers to different questions are not compared
    scores: list[float] | None = None  # (B,) once they were asked for; not saved
    measured: dict[str, list[float]] = field(default_factory=dict)  # of held-out judged answers (evaluation/judged.py)

    def save(self, file: Path) -> None:
        stored = {"question": self.question, "answers": [asdict(a) for a in self.answers]}
        values = {"logps": self.reference_logps, "imitation": self.imitation, "measured": self.measured}
        write_atomically(file, json.dumps({**stored, **values}))

    @classmethod
    def load(cls, file: Path) -> Answers:
        stored = json.loads(file.read_text())
        answers = [Answer(tuple(a["ids"]), a["text"], a["finished"]) for a in stored["answers"]]
        measured = stored.get("measured", {})
        return cls(answers, stored["logps"], stored["imitation"], stored.get("question", ""), measured=measured)

    @property
    def tokens(self) -> list[int]:
        return [len(answer.ids) for answer in self.answers]

    @property
    def fluency(self) -> float:
        """Mean log-prob per token under the reference model, in nats."""
        return sum(self.reference_logps) / sum(self.tokens)


class EndOfRun:
    """Asks the policy the same held-out prompts before and after.

    Args:
        trainer: an AlignmentTrainer whose `start` is the policy as it began, as a reference; where that is None, there
            is no KL and no fluency.
        prompts: held-out prompts, without repeats. The first `config.evaluation.prompts` are asked of those that have
            at most `config.data.max_prompt_length` tokens as they are asked.
    """

    def __init__(self, trainer: Any, prompts: Sequence[Any]) -> None:
        self.trainer, self.settings = trainer, trainer.config.evaluation
        self.prompts, self.ids, self.longer = self.within_length(prompts)
        self.asks = f"answering {len(self.prompts)} held-out prompts{self.longer_ones()}"
        self.imitates = hasattr(trainer, "nats_per_token")
        asked = (self.ids, *(getattr(self.settings, key) for key in ("max_new_tokens", "temperature", "top_p")))
        self.question = digest_of(asked, trainer.config.seed, digests(trainer.eval_units) if self.imitates else [])
        self.reward = self._reward() if self.settings.score and self.prompts else None

    def within_length(self, given: Sequence[Any]) -> tuple[list[Any], list[list[int]], int]:
        """(what is asked of `given`, the token ids, how many were passed over for their length)."""
        most, longer = self.trainer.config.data.max_prompt_length, 0
        asked: list[Any] = []
        kept: list[list[int]] = []
        for one in given:
            if len(kept) == self.settings.prompts:
                break
            ids = self.encode(one)
            if len(ids) <= most:
                asked.append(one)
                kept.append(ids)
            else:
                longer += 1
        return asked, kept, longer

    def longer_ones(self) -> str:
        return f" ({self.longer} over data.max_prompt_length passed over)" if self.longer else ""

    def encode(self, prompt: Any) -> list[int]:
        """The prompt's token ids, as the policy is asked."""
        return prompt_ids([prompt], self.trainer.tokenizer, self.trainer.config.data)[0]

    def _reward(self) -> Any:
        """`evaluation.score`, tried on an answer: what is wrong with it must not end a run at its end.

        Raises:
            UserError: it compares answers to one prompt, of which there is one here, or it fails.
        """
        reward = as_reward(build_feedback(self.settings.score, "evaluation.score"))
        if any(getattr(part, "rows_together", False) for part in inside(reward)):
            raise UserError("evaluation.score: a judge compares answers to a prompt, and here is one answer to each")
        shared = over_ranks(reward)
        try:
            shared.score(self.prompts[:1], ["An answer."])
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(
                f"evaluation.score: {label(reward)} cannot score an answer to a held-out prompt: "
                f"{' '.join(reason.split())[:300]}\nMend: a score that needs nothing but prompt and answer, or null"
            ) from error
        return shared

    load = staticmethod(Answers.load)

    def ask(self) -> Answers:
        """Sample one answer to every prompt from the policy as it is now; all ranks take a share.

        Where the trainer has `best_of` above 1, so many are sampled to each prompt, and its `pick` says which one is
        kept.
        """
        trainer, settings, k = self.trainer, self.settings, getattr(self.trainer, "best_of", 1)
        sampled = sampled_answers(
            trainer,
            trainer.accelerator.unwrap_model(trainer.model),
            trainer.tokenizer,
            self.ids,
            k,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            batch_size=settings.batch_size,
            seed=trainer.config.seed,
        )
        chosen = trainer.pick(self.prompts, sampled) if k > 1 else [0] * len(sampled)
        answers = [those[place] for those, place in zip(sampled, chosen, strict=True)]

        def reference(model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
            return reference_sums(trainer.start, model, batch)

        imitation = score_units(trainer, trainer.eval_units, trainer.nats_per_token) if self.imitates else []
        logps = self._score(answers, reference) if trainer.start is not None else []
        return Answers(answers, logps, imitation, self.question)

    def divergence(self, after: Answers) -> dict[str, float]:
        """Sequence KL from the policy to the reference, both at the sampling temperature: mean log-ratio and its SE."""
        temperature = self.settings.temperature or 1.0

        def log_ratio(model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
            policy = sum_by_completion(token_logps(model, batch, temperature), batch)
            return policy - reference_sums(self.trainer.start, model, batch, temperature)

        mean, se = mean_and_se(self._score(after.answers, log_ratio))
        return {"mean": mean, "se": se}

    def _score(self, answers: Sequence[Answer], value: Value) -> list[float]:
        """`value` (one number a completion) of every answer, in order."""
        units = [
            Unit(str(i), (Group(tuple(prompt), (answer.ids,)),))
            for i, (prompt, answer) in enumerate(zip(self.ids, answers, strict=True))
        ]
        return score_units(self.trainer, units, value)

    def table(self, before: Answers, after: Answers) -> dict[str, Any]:
        """The score, feedback, length, fluency and KL entries of summary.json."""
        entries: dict[str, Any] = {}
        if self.reward is not None:
            difference = paired_difference(self.scores(before), self.scores(after))
            entries["score"] = difference.to_summary(label(self.reward))
        taught = self._taught(before, after)
        if taught:
            entries["feedback"] = taught
        if self.imitates:
            entries["imitation"] = paired_difference(before.imitation, after.imitation).to_summary("nats per token")
        entries["length"] = {name: sum(a.tokens) / len(a.tokens) for name, a in (("before", before), ("after", after))}
        if self.trainer.start is not None:
            entries["kl"] = self.divergence(after)
            entries["fluency"] = {"before": before.fluency, "after": after.fluency}
        return entries

    def _taught(self, before: Answers, after: Answers) -> dict[str, Any]:
        """What an online run's own feedback says of the answers, where that is not the score already.

        A reward's mean before and after; of a judge, how often it prefers the later answer. Far from the score, the
        feedback is being played. Empty where there is none, or it cannot say anything about a prompt alone.
        """
        feedback, config = getattr(self.trainer, "feedback", None), self.trainer.config
        if feedback is None or _are_same(config.feedback, self.settings.score):
            return {}
        old, new = ([answer.text for answer in answers.answers] for answers in (before, after))
        together = any(getattr(part, "rows_together", False) for part in inside(feedback))
        try:
            if isinstance(feedback, Judge):
                wins = feedback.prefer(self.prompts, new, old)
            else:
                scores = feedback.score([*self.prompts, *self.prompts], [*old, *new])
                if not together:
                    half = len(old)
                    return paired_difference(scores[:half], scores[half:]).to_summary(label(feedback))
                wins = scores[len(old) :]
        except Exception as error:  # it may need what only training prompts carry; the run is done all the same
            reason = " ".join(str(error).split())[:200]
            return {"name": label(feedback), "failed": f"{type(error).__name__}: {reason}"}
        above = paired_difference([0.5] * len(wins), wins)
        entry = {"name": label(feedback), "prompts": above.n, "wins": above.after}
        return entry | ({"ci95": [0.5 + above.low, 0.5 + above.high]} if above.n > 1 else {})

    def scores(self, answers: Answers) -> list[float]:
        """The ground-truth score of each answer, asked for once; NaN is no verdict. All ranks must call it."""
        assert self.reward is not None
        if answers.scores is None:
            answers.scores = self.reward.score(self.prompts, [answer.text for answer in answers.answers])
        return answers.scores

    def samples(self, before: Answers, after: Answers) -> list[dict[str, Any]]:
        """The rows of samples.jsonl."""
        rows: list[dict[str, Any]] = []
        for i, (old, new) in enumerate(zip(before.answers, after.answers, strict=True)):
            texts = {"prompt": self.prompts[i][-1]["content"], "before": old.text, "after": new.text}
            rows.append({**texts, "tokens_before": len(old.ids), "tokens_after": len(new.ids)})
        if self.reward is not None:
            for row, old_score, new_score in zip(rows, self.scores(before), self.scores(after), strict=True):
                scores = {"score_before": old_score, "score_after": new_score}
                row |= {name: score if math.isfinite(score) else None for name, score in scores.items()}
        return rows


def _named(settings: Any) -> dict[str, Any]:
    """A section of feedback settings; a bare name is one without settings."""
    return {"name": settings} if isinstance(settings, str) else dict(settings or {})


def _are_same(feedback: Any, score: Any) -> bool:
    """Whether two sections are of one feedback, settings that are left out counted as what they then are."""
    first, second = _named(feedback), _named(score)
    if not first or first.get("name") != second.get("name"):
        return False
    return first == second or build_feedback(first) == build_feedback(second)


def digest_of(*parts: Any) -> str:
    """A short digest of plain values."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def held_out_entry(metrics: dict[str, float], n: int) -> dict[str, float] | None:
    """The entry of the held-out pairs (or answers) in summary.json, from an evaluation's metrics."""
    if n == 0 or math.isnan(metrics.get("eval_accuracy", math.nan)):
        return None
    return {"accuracy": metrics["eval_accuracy"], "margin": metrics["eval_margin"], "n": n}


def peak_memory_mb() -> float:
    """Most memory in use so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def versions() -> dict[str, str]:
    """What the run was made with."""
    names = ("torch", "transformers", "accelerate", "peft", "datasets", "alignment-toolkit")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except ImportError:  # running from a checkout that was not installed
            continue
    return found
