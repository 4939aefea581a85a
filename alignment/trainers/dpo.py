"""Direct preference optimisation (Rafailov et al., 2305.18290): the policy is its own reward model.

View: pairs (prompt, chosen, rejected). Groups: one, the prompt with both answers. Models: policy and reference.
Loss: any of losses/pairwise.py and losses/reference_free.py, a weighted sum, or one's own function of `PairLogps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from alignment.batching.groups import Unit
from alignment.batching.packing import Batch, pack
from alignment.config import RunConfig
from alignment.losses.combine import PairLoss, Term
from alignment.losses.modifiers import ld_weights, wpo_weight
from alignment.losses.record import LossOutput, PairLogps
from alignment.models.logps import sum_by_completion, token_logps, token_logps_and_squares
from alignment.models.reference import reference_sums
from alignment.models.reference_cache import fingerprint, key, open_cache
from alignment.trainers.inputs import load_pairs
from alignment.trainers.loss_settings import build_loss
from alignment.trainers.map_units import gathered
from alignment.trainers.policy import PolicyTrainer
from alignment.trainers.termination import TERMINATION

SCORED_AT_ONCE = 1024  # pairs scored before their sums are kept on disk: what a kill while precomputing loses


class DPOTrainer(PolicyTrainer):
    """Train a policy on preference pairs.

    Args: as of `PolicyTrainer`; `train` and `eval` may be lists of `Pair`.
        loss: a function PairLogps -> LossOutput in place of config.loss. One that reads no reference says so by an
            attribute `needs_reference = False`.
    """

    load = staticmethod(load_pairs)

    def __init__(
        self,
        model: Any = None,
        config: RunConfig | None = None,
        *,
        loss: Callable[[PairLogps], LossOutput] | None = None,
        **rest: Any,
    ) -> None:
        self.own_loss = loss
        super().__init__(model, config, **rest)
        self.reference_cache: dict[tuple, Tensor] = {}

    def choose_loss(self, config: RunConfig) -> None:
        self.loss = _as_pair_loss(self.own_loss) if self.own_loss else build_loss(config.loss)
        self.needs_reference = self.loss.needs_reference

    def compute(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
        """log pi of both answers, log ref of both answers, and the loss on their differences (eq. 7)."""
        weight = ratios = None
        if self.loss.weighting == "wpo":
            tokens, squares = token_logps_and_squares(model, batch)
            weight = wpo_weight(sum_by_completion(tokens.detach() - squares, batch) / batch.lengths)
        else:
            tokens = token_logps(model, batch)
        policy = sum_by_completion(tokens, batch)
        reference = self.reference_logps(model, units, batch) if self.loss.needs_reference else torch.zeros_like(policy)
        token_weights = self.token_weights(batch)
        if token_weights is not None:
            ratio = sum_by_completion(token_weights * tokens, batch) - reference
            ratios = (ratio[0::2], ratio[1::2])
        lengths = batch.lengths.to(policy.dtype)
        p_chosen = torch.tensor([unit.values.get("p_chosen", 1.0) for unit in units]).to(
            policy.device, non_blocking=True
        )
        return self.loss(
            PairLogps.by_turns(policy, reference, lengths, p_chosen=p_chosen, ratios=ratios, weight=weight)
        )

    def token_weights(self, batch: Batch) -> Tensor | None:
        """(N,) weights of the tokens in both policies' sums (LD-DPO), or None where all weigh 1."""
        return ld_weights(batch.lengths, batch.owners, self.loss.ld_alpha) if self.loss.ld_alpha != 1 else None

    def reference_logps(self, model: nn.Module, units: Sequence[Unit], batch: Batch) -> Tensor:
        """Summed log-probs (2 * len(units),), with the token weights of the loss, under the reference.

        Looked up where precomputed, else scored now.
        """
        known = [self.reference_cache.get(unit.groups) for unit in units]
        if all(value is not None for value in known):
            return torch.cat([value for value in known if value is not None]).to(batch.lengths.device)
        assert self.reference is not None
        return reference_sums(self.reference, model, batch, token_weights=self.token_weights(batch))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; with reference.when=precompute, the reference scores every pair once before the first step."""
        if self.config.reference.when == "precompute" and self.loss.needs_reference and not self.reference_cache:
            self._precompute_reference()
        return super().train(*args, **kwargs)

    def _precompute_reference(self) -> None:
        """The reference's sums of every training pair: from the cache on disk, the rest scored now and added to it."""
        pairs = list({unit.groups: unit for unit in self.train_units}.values())
        # Rank 0 alone opens the cache: all ranks must leave out the same pairs, and may not share a disk.
        cache = open_cache(self.config.reference.cache) if self.is_world_process_zero() else None
        keys = self._cache_keys(pairs) if cache else []
        known = [cache.get(keys) if cache else [None] * 2 * len(pairs)]
        broadcast_object_list(known)
        for unit, row in zip(pairs, zip(known[0][0::2], known[0][1::2], strict=True), strict=True):
            if None not in row:
                self.reference_cache[unit.groups] = torch.tensor(row)
        if cache:
            found = sum(unit.groups in self.reference_cache for unit in self.train_units)
            print(f"reference log-probs: {found} of {len(self.train_units)} pairs from the cache")
        missing = [number for number, unit in enumerate(pairs) if unit.groups not in self.reference_cache]
        for at in range(0, len(missing), SCORED_AT_ONCE):
            numbers = missing[at : at + SCORED_AT_ONCE]
            self.reference_cache |= self._score_reference([pairs[number] for number in numbers])
            if cache:
                sums = {number: self.reference_cache[pairs[number].groups].tolist() for number in numbers}
                cache.put({keys[2 * number + k]: row[k] for number, row in sums.items() for k in (0, 1)})
            TERMINATION.raise_if_agreed(self.accelerator)

    def _cache_keys(self, pairs: Sequence[Unit]) -> list[bytes]:
        """Two keys a pair, chosen and rejected by turns."""
        assert self.reference is not None
        mark = fingerprint(self.reference, self.accelerator.mixed_precision)
        keys = []
        for unit in pairs:
            group, weights = unit.groups[0], [None, None]
            if self.loss.ld_alpha != 1:
                batch = pack(unit.groups, "padded")
                of_tokens = ld_weights(batch.lengths, batch.owners, self.loss.ld_alpha)
                weights = [piece.tolist() for piece in of_tokens.split(batch.lengths.tolist())]
            keys += [key(mark, group.prompt, *answer) for answer in zip(group.completions, weights, strict=True)]
        return keys

    def _score_reference(self, pairs: Sequence[Unit]) -> dict[tuple, Tensor]:
        """(2,) sums under the reference of each of `pairs`, by its groups; every rank scores a share and gets all."""
        share = self.share(pairs)
        found: list[tuple[tuple, list[float]]] = []

        def score(model: nn.Module, units: Sequence[Unit], batch: Batch) -> LossOutput:
            sums = self.reference_logps(model, units, batch).view(-1, 2)
            found.extend((unit.groups, row) for unit, row in zip(units, sums.tolist(), strict=True))
            return LossOutput(sums.sum(-1))

        for units in self.micro_batches(share):
            self.run(self.model_wrapped, units or [self.filler], score)
        return {groups: torch.tensor(row) for groups, row in gathered(self, found)}


def _as_pair_loss(loss: Callable[[PairLogps], LossOutput]) -> PairLoss:
    """One's own function as the loss of a run."""
    if isinstance(loss, PairLoss):
        return loss
    return PairLoss((Term("own", loss, needs_reference=getattr(loss, "needs_reference", True)),))
