"""Reward models: a scalar score of an answer, trained on preferences (Christiano et al., 1706.03741).

View: pairs (prompt, chosen, rejected). Groups: one, the prompt with both answers. Model: a language model's body with a
head of one score, or of one for each objective, which are averaged when it is used. Loss: losses/reward.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.batching.units import TokenCounts, pair_units
from alignment.config import RunConfig
from alignment.config_check import check_values
from alignment.data.templates import check_tokenizer
from alignment.data.views import Pair, pairs
from alignment.losses.record import LossOutput
from alignment.losses.reward import PairScores
from alignment.models.adapters import add_adapter
from alignment.models.loading import load_tokenizer
from alignment.models.scores import Scorer, attach_scores, completion_scores, new_scorer, scoring_pad
from alignment.trainers.base import AlignmentTrainer
from alignment.trainers.inputs import Source, View, load_view
from alignment.trainers.loss_settings import build_reward_loss


class RewardTrainer(AlignmentTrainer):
    """Train a reward model on preference pairs.

    Args:
        model: what to start from: a name, folder, hub id, or a run (of recipe=sft, say); None takes config.model.
        config: settings; config.model.objectives gives the model a score for each of them.
        train, eval: a path, Examples, or a list of `Pair`; None takes config.data.
        folder: where metrics and checkpoints go; None takes config.output_dir.
    """

    kind = "reward"
    default_loss = "bradley_terry"  # of a trainer without a config
    to_units: Callable[..., tuple[list[Unit], TokenCounts]] = staticmethod(pair_units)  # how pairs become token ids
    build_loss: Callable[[dict[str, Any]], Callable[..., LossOutput]] = staticmethod(build_reward_loss)

    def __init__(
        self,
        model: str | None = None,
        config: RunConfig | None = None,
        *,
        train: Source = None,
        eval: Source = None,
        folder: str | Path | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        config = config or RunConfig(method=self.kind, loss={"name": self.default_loss})
        if model is not None:
            config.model.path = config.model.name = model
        check_values(config)
        self.loss = self.build_loss(config.loss)
        self.card = Scorer(self.kind, tuple(config.model.objectives), config.data.template)
        tokenizer = load_tokenizer(config.model)
        check_tokenizer(tokenizer, config.data.template)
        to_units = self.to_units
        if self.card.objectives:
            to_units = functools.partial(pair_units, objectives=self.card.objectives)
        self.data = load_view(train, eval, tokenizer, config, View(Pair, pairs, to_units, "pair", by_example=True))
        scorer = new_scorer(config.model, self.card.heads, config.seed)
        scorer.config.pad_token_id = scoring_pad(tokenizer)
        run_folder = Path(folder or config.output_dir or f"outputs/{config.method}")
        run_folder.mkdir(parents=True, exist_ok=True)
        policy = attach_scores(add_adapter(scorer, config.peft, "SEQ_CLS"))
        super().__init__(policy, tokenizer, config, run_folder, self.data.train, self.data.evaluation, callbacks)

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """r(x, y_w) and r(x, y_l) of the pair's objective, and the loss on their difference."""
        scores = completion_scores(model, batch)  # (2 * len(units), heads)
        heads = self.values(units, "objective", scores.device).long().repeat_interleave(2)
        chosen, rejected = scores.gather(1, heads[:, None]).view(-1, 2).unbind(1)
        return self.loss(
            PairScores(
                chosen,
                rejected,
                p_chosen=self.values(units, "p_chosen", scores.device, 1.0),
                margin=self.values(units, "margin", scores.device),
            )
        )

    def logits(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        """(len(units),) log-odds that the chosen answer is the better one, all objectives averaged."""
        scores = completion_scores(model, batch).mean(1).view(-1, 2)
        return scores[:, 0] - scores[:, 1]

    def save_policy(self, folder: Path) -> None:
        """Save adapter and head, or the whole model, with what the scores mean."""
        super().save_policy(folder)
        if self.is_world_process_zero():
            self.card.save(folder)

    @staticmethod
    def values(units: Sequence[Unit], name: str, device: torch.device, default: float = 0.0) -> Tensor:
        """(len(units),) that number of each unit."""
        return torch.tensor([unit.values.get(name, default) for unit in units]).to(device, non_blocking=True)
