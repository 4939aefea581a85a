"""The loss of supervised fine-tuning: the negative log-likelihood of answers to imitate."""

from __future__ import annotations

from torch import Tensor

from alignment.losses.record import LossOutput


def nll(logps: Tensor, lengths: Tensor, mean_length: Tensor | None = None) -> LossOutput:
    """-log pi(y | x), divided so that the mean over the examples of a step is one over its tokens or its sequences.

    Args:
        logps: (B,) summed log-probs, in nats.
        lengths: (B,) tokens of each answer.
        mean_length: () mean tokens of an answer in the whole optimizer step: every token of the step weighs the same.
            None divides each answer by its own length: every sequence weighs the same.
    """
    own = -logps / lengths
    values = own if mean_length is None else -logps / mean_length
    return LossOutput(values, {"nats_per_token": own.detach()})
