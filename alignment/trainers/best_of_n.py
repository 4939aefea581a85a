"""Best of n: sample n answers to a prompt and let the feedback pick one (as in AlpacaFarm, 2305.14387). No training.

The baseline that an online method has to beat: what the same feedback gains at the price of n answers a prompt. The KL
of the picked answers from the sampled ones is at most log n - (n - 1) / n nats (Beirami et al., 2401.01879).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.config import RunConfig
from alignment.data.example import Message
from alignment.errors import Interrupted, UserError
from alignment.feedback.adapters import as_reward
from alignment.feedback.ranks import over_ranks
from alignment.models.reference import FrozenCopy
from alignment.rollouts.sample import Answer
from alignment.trainers.expert_iteration import best
from alignment.trainers.online import given_feedback, load_only_prompts, penalised
from alignment.trainers.policy import PolicyTrainer


class BestOfNTrainer(PolicyTrainer):
    """Answers held-out prompts with the best of rollout.completions samples, as the end-of-run table asks for them.

    They are sampled as evaluation.* says, so that best of n differs from one sample in nothing but n.

    Args: as of `OnlineTrainer`.
    """

    method, held_out_kind, needs_reference = "best_of_n", "prompts", False
    load = staticmethod(load_only_prompts)
    best_of = 1  # samples to a prompt; n once `train` was called

    def __init__(
        self, model: Any = None, config: RunConfig | None = None, *, feedback: Any = None, **rest: Any
    ) -> None:
        super().__init__(model, config, **rest)
        self.n, self.no_verdict = self.config.rollout.completions, 0  # prompts without one
        self.feedback = over_ranks(as_reward(given_feedback(feedback, self.config)))

    def choose_loss(self, config: RunConfig) -> None:
        """There is none; what makes no sense without one is refused."""
        if config.rollout.completions < 2:
            raise UserError("rollout.completions=1: the best of one answer is that answer; take 2 or more")
        if config.evaluation.temperature == 0 or not config.evaluation.prompts:
            key = "prompts" if config.evaluation.temperature else "temperature"
            raise UserError(f"evaluation.{key}=0: best of n picks among different answers to held-out prompts")
        if config.reference.path:
            raise UserError("reference.path: best of n is compared with the model that is sampled; leave it out")

    def extend(self, policy: Any) -> None:
        policy.requires_grad_(False)

    def planned_steps(self) -> int:
        return 0

    def train(self, *unused: Any, **also_unused: Any) -> None:  # type: ignore[override]
        """From now on the best of n is the answer; no weight changes."""
        self.best_of = self.n

    def save_policy(self, folder: Path) -> None:
        """Nothing: the model is the one that was given."""

    @property
    def start(self) -> FrozenCopy:
        return FrozenCopy(self.accelerator.unwrap_model(self.model))

    def pick(self, prompts: Sequence[list[Message]], answers: Sequence[Sequence[Answer]]) -> list[int]:
        """The place of the best of each prompt's answers; where none has a verdict, of the first, and it is counted."""
        flat = [answer for those in answers for answer in those]
        asked = [prompt for prompt in prompts for _ in range(self.n)]
        known = {json.dumps(record.prompt): record.meta for record in self.data.held_out}
        try:
            texts, context = [answer.text for answer in flat], [known[json.dumps(prompt)] for prompt in asked]
            scores = self.feedback.score(asked, texts, context)
        except Interrupted:
            raise
        except Exception as error:
            raise UserError(
                f"the feedback failed on the {len(flat)} samples: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}\n"
                "Mend: nothing was trained, so there is nothing to resume: run it again"
            ) from error
        rewards = penalised(scores, [answer.finished for answer in flat], self.config.rollout.missing_end_penalty)
        each = [rewards[at : at + self.n] for at in range(0, len(rewards), self.n)]
        self.no_verdict = sum(not any(map(math.isfinite, those)) for those in each)
        return [best(those) for those in each]

    def entries(self) -> dict[str, Any]:
        """What summary.json says besides."""
        bound = math.log(self.n) - (self.n - 1) / self.n
        return {"best_of": {"n": self.n, "no_verdict": self.no_verdict}, "kl": {"bound": bound}}
