"""Learning from single answers with a thumbs up or down: KTO (2402.01306) and BCO (2404.04656).

View: unpaired (prompt, answer, desirable). Groups: one, the prompt with its answer; aside, the prompt with an answer
to another prompt. Models: policy and reference. Loss: losses/unpaired.py, which couples the answers of an optimizer
step by one number: the KL estimate of KTO, the reward shift of BCO. It comes from a pass without gradient over the
whole step and all ranks, so neither the token budget nor the number of processes changes the update.

Two deviations from the papers, both for the sake of that: KTO's mismatched answer is drawn once for each example, with
the seed, and not from the neighbours in a batch; BCO's shift is the mean over all answers seen so far.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch
from alignment.config import RunConfig
from alignment.losses.record import LossOutput, UnpairedLogps
from alignment.models.logps import sum_by_completion, token_logps
from alignment.models.reference import eval_mode, reference_sums
from alignment.trainers.inputs import load_answers
from alignment.trainers.loss_settings import build_unpaired_loss
from alignment.trainers.policy import PolicyTrainer


class KTOTrainer(PolicyTrainer):
    """Train a policy on single answers, each desirable or not; the answers of a pair are one of either.

    Args: as of `PolicyTrainer`; `train` and `eval` may be lists of `Unpaired`.
    """

    method, default_loss = "kto", "kto"
    load = staticmethod(load_answers)
    held_out_kind = "answers"
    filler_completions = 1

    def choose_loss(self, config: RunConfig) -> None:
        self.loss = build_unpaired_loss(config.loss)
        self.shift = RewardShift(config.loss.get("beta", 0.1)) if config.loss.get("name") == "bco" else None

    def save_method_state(self, folder: Path) -> None:
        super().save_method_state(folder)
        if self.shift and self.is_world_process_zero():
            (folder / "reward_shift.json").write_text(json.dumps(self.shift.sums))

    def load_method_state(self, folder: Path) -> None:
        super().load_method_state(folder)
        if self.shift:
            self.shift.sums = json.loads((folder / "reward_shift.json").read_text())

    def step_statistics(self, model: nn.Module, units: Sequence[Unit], training: bool) -> Tensor:
        """KTO's KL: the mean log-ratio of the mismatched answers. BCO's shift: from the log-ratios of the answers."""
        if self.shift:
            return self.shift.seen(self.sum_ratios(model, units), training)
        strangers = [Unit(unit.id, unit.aside, unit.values) for unit in units]
        total, count = self.sum_ratios(model, strangers).sum(0)
        return total / count.clamp(min=1)

    def sum_ratios(self, model: nn.Module, units: Sequence[Unit]) -> Tensor:
        """(2, 2): sum of log pi/ref and number, of desirable and of undesirable answers; all ranks, no gradient."""
        found = torch.zeros(2, 2, device=self.args.device)

        def ratios(model: nn.Module, piece: Sequence[Unit], batch: Batch) -> LossOutput:
            policy, reference = self.logps(model, batch)
            return LossOutput(policy - reference)

        with eval_mode(model):
            for piece in self.micro_batches(units):
                values = self.run(model, piece or [self.filler], ratios).values
                if piece:
                    good = desirable(piece).to(values.device, non_blocking=True)
                    kinds = torch.stack([good, ~good])
                    sums = torch.where(kinds, values, 0.0).sum(1)
                    found += torch.stack([sums, kinds.sum(1, dtype=sums.dtype)], dim=1)
        return self.accelerator.reduce(found, "sum")

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """log pi and log ref of each answer, and the loss on their difference and the step's statistic."""
        policy, reference = self.logps(model, batch)
        good = desirable(units).to(policy.device, non_blocking=True)
        return self.loss(UnpairedLogps(policy, reference, batch.lengths, good), self.statistic)

    def logps(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Summed log-probs (C,) under the policy and under the reference."""
        assert self.reference is not None
        policy = sum_by_completion(token_logps(model, batch), batch)
        return policy, reference_sums(self.reference, model, batch)


def desirable(units: Sequence[Unit]) -> Tensor:
    """(len(units),) bool: which answers are."""
    return torch.tensor([unit.values.get("desirable", 1.0) > 0 for unit in units])


class RewardShift:
    """BCO's delta: half the sum of the mean rewards of desirable and undesirable answers, over the run so far."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.sums = [[0.0, 0.0], [0.0, 0.0]]  # (sum of log-ratios, number) of desirable and of undesirable answers

    def seen(self, step: Tensor, training: bool) -> Tensor:
        """The shift () with the answers of this step counted in; `step` is (2, 2), as `sums`. Kept where training."""
        total = torch.tensor(self.sums, device=step.device) + step
        if training:
            self.sums = total.tolist()
        return (self.beta * total[:, 0] / total[:, 1].clamp(min=1)).mean()
